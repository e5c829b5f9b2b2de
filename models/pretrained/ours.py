"""This project's own checkpoints."""

from __future__ import annotations

from torch import nn

from encore.models.checkpoint import load_checkpoint


def open_file(path: str) -> nn.Module:
    """Open a ``.ckpt`` or ``.safetensors`` file of ours; see `encore.models.checkpoint.load_checkpoint`."""
    return load_checkpoint(path)
