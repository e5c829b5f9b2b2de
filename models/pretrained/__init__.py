"""Separators trained by other projects: one module per family, opened by `uri`."""
