"""TorchScript files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.graphs import KEY, GraphSeparator, about_graph, existing
from encore.models.weights import one_line


def open_torchscript(
    path: str,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    layout: str | None = None,
) -> nn.Module:
    """Open a file of ``torch.jit.save``.

    Args:
        path: The file. What it does not say in an extra file ``encore.yaml`` must be given.
        sources: Names of the estimated sources.
        sample_rate: Rate in Hz.
        channels: Channels of mixture and estimates; 1 where nothing is said.
        layout: ``bct`` or ``bt``; found by a call on noise where it is left out.

    Returns:
        The separator.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no TorchScript, or does not separate what is said.
    """
    file = existing(path)
    extra = {f"{KEY}.yaml": ""}
    try:
        script: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
            str(file), map_location="cpu", _extra_files=extra
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"'{path}' is not a TorchScript file: {one_line(error)}") from error
    said = extra[f"{KEY}.yaml"]
    about = about_graph(file, said, sources=sources, sample_rate=sample_rate, channels=channels)
    separator = ScriptSeparator(script.eval(), about)
    separator.find_layout(layout)
    return separator


class ScriptSeparator(GraphSeparator):
    """A scripted or traced network.

    Args:
        script: What ``torch.jit.load`` returns.
        about: See `encore.models.pretrained.graphs.GraphSeparator`.
    """

    def __init__(self, script: nn.Module, about: dict[str, Any]) -> None:
        super().__init__(about, length=None, batch=None)
        self.script = script

    def run(self, waveform: Tensor) -> Tensor:
        """Call it."""
        estimates: Tensor = self.script(waveform)
        return estimates
