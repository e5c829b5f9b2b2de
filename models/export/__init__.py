"""Separators as files that other programs run: torch.export, ONNX and TorchScript, beside our own weights."""

from __future__ import annotations

from encore.models.export.files import SUFFIXES, Extent, largest_difference, write

__all__ = ["SUFFIXES", "Extent", "largest_difference", "write"]
