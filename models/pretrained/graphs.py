"""Separators stored as graphs: TorchScript, programs of ``torch.export`` and ONNX."""

from __future__ import annotations

from functools import partial
from typing import Any

import yaml
from torch import nn

from encore.common.errors import one_line
from encore.common.graphs import METADATA, load_graph
from encore.models.pretrained.functions import EXAMPLES, as_separator


def open_graph(
    kind: str,
    path: str,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    layout: str | None = None,
) -> nn.Module:
    """Open a graph of one input and one output.

    Args:
        kind: One of `encore.common.graphs.GRAPHS`.
        path: The file. What it does not say in its metadata (`METADATA`, YAML of ``sources``, ``sample_rate``
            and ``channels``) must be given.
        sources: Names of the estimated sources; those of the file if None.
        sample_rate: Rate in Hz, if the file does not say it.
        channels: Channels of mixture and estimates; those of the file if None, or else 1.
        layout: ``bct`` or ``bt``; found by calls on noise if None.

    Returns:
        The separator; no gradients go through ONNX.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, could run code, or does not separate such signals.
    """
    graph = load_graph(path, kind)
    for name, count in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if count not in (None, 1):
            raise ValueError(f"'{path}' has {count} {name}: a separator's graph has one of each")
    try:
        said: Any = yaml.safe_load(graph.metadata) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"'{path}': its metadata '{METADATA}' are not YAML: {one_line(error)}") from error
    if not isinstance(said, dict):
        raise ValueError(
            f"'{path}': its metadata '{METADATA}' hold no mapping of sources, sample_rate and channels"
        )
    # options win; but the rate of the file is the graph's, and another one is resampled to
    known: dict[str, Any] = {
        "sources": sources or said.get("sources"),
        "sample_rate": said.get("sample_rate") or sample_rate,
        "channels": channels or said.get("channels") or 1,
    }
    if missing := [name for name in EXAMPLES if known[name] is None]:
        raise ValueError(
            f"'{path}' does not say its {' and '.join(missing)}: give them, as in "
            f"--separator '{path}?{'&'.join(map('='.join, EXAMPLES.items()))}'"
        )
    if not isinstance(known["sample_rate"], int) or not isinstance(known["channels"], int):
        raise ValueError(f"'{path}': sample_rate or channels in its metadata '{METADATA}' is no whole number")
    return as_separator(graph, **known, layout=layout)


open_torchscript, open_exported, open_onnx = (
    partial(open_graph, kind) for kind in ("torchscript", "exported", "onnx")
)
