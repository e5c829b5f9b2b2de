"""Loaders of separators trained by other projects: one module a family, dispatched by `uri`."""
