"""Networks, and the one door to trained ones: a separator is a function from mixture to estimates."""

from __future__ import annotations

from models.pretrained import load_prior, load_separator
from models.types import LoadedSeparator, Separator

__all__ = ["LoadedSeparator", "Separator", "load_prior", "load_separator"]
