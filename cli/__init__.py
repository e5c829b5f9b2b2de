"""What the scripts need beyond their options: run folders, checked overrides, files in and out."""
