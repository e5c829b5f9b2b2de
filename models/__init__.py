"""Networks, and loaders of trained ones: a separator is a function from mixture to estimates."""

from __future__ import annotations

from encore.models.loading import load_prior, load_separator
from encore.models.pretrained.functions import as_separator
from encore.models.types import LoadedSeparator, Separator
from encore.models.wrappers import select

__all__ = ["LoadedSeparator", "Separator", "as_separator", "load_prior", "load_separator", "select"]
