"""Networks, and the one door to trained ones: a separator is a function from mixture to estimates."""

from __future__ import annotations

from encore.models.loading import load_prior, load_separator
from encore.models.types import LoadedSeparator, Separator

__all__ = ["LoadedSeparator", "Separator", "load_prior", "load_separator"]
