"""Audio files, corpora on disk, and samples and loaders made of them."""
