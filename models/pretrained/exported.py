"""Programs of ``torch.export``."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.graphs import KEY, GraphSeparator, about_graph, existing
from encore.models.weights import one_line, tensors_only

_FUNCTIONS = (
    "Add|Mul|Pow|Integer|Rational|Half|One|Zero|NegativeOne|Infinity|NegativeInfinity|Max|Min|Mod|Abs|floor|"
    "ceiling|true|false|oo|Equality|Unequality|And|Or|Not|FloorDiv|PythonMod|CleanDiv|CeilDiv|CeilToInt|"
    "(?:Strict)?(?:Greater|Less)Than|FloorToInt|TruncToInt|RoundToInt|ToFloat|IntTrueDiv|FloatTrueDiv|"
    "PowByNatural|FloatPow|ModularIndexing|Where|Identity"
)
# torch evaluates size expressions as Python, and looks targets up by name from the torch module on:
# only sums and products of named sizes may be evaluated, and only operators looked up
_EXPRESSION = re.compile(
    r"(?:Symbol\('\w+'(?:, \w+=(?:True|False))*\)|Float\('[\d.e+-]+', precision=\d+\)|"
    rf"\b(?:{_FUNCTIONS})\b|\b[su]\d+\b|\d|[-+*/(), <>=.])*+"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchaudio)\.\w+(\.\w+)?|_operator\.[a-z]\w*|torch\.sym_\w+|"
    r"math\.[a-z]\w*|torch\._sym_\w+|torch\.ops\._\w+\.[a-z]\w*"
)


def open_exported(
    path: str,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    layout: str | None = None,
) -> nn.Module:
    """Open a file of ``torch.export.save`` with one input and one output.

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
        ValueError: If it is no such program, holds more than tensors and operators of torch, or does not
            separate what is said.
    """
    file = existing(path)
    _screen(file)
    extra = {f"{KEY}.yaml": ""}
    try:
        with tensors_only(), warnings.catch_warnings():
            # its tensors lie on the bytes of the file, which nobody writes to
            warnings.simplefilter("ignore", UserWarning)
            program = torch.export.load(str(file), extra_files=extra)
    except Exception as error:  # it raises whatever its parts raise
        raise ValueError(f"'{path}' is not a program of torch.export: {one_line(error)}") from error
    said = extra[f"{KEY}.yaml"]
    about = about_graph(file, said, sources=sources, sample_rate=sample_rate, channels=channels)
    separator = ExportedSeparator(program, about)
    separator.find_layout(layout)
    return separator


class ExportedSeparator(GraphSeparator):
    """An exported program.

    Args:
        program: What ``torch.export.load`` returns.
        about: See `encore.models.pretrained.graphs.GraphSeparator`.
    """

    def __init__(self, program: torch.export.ExportedProgram, about: dict[str, Any]) -> None:
        shape = _input_shape(program)
        fixed = [size if isinstance(size, int) else None for size in shape]
        super().__init__(about, batch=fixed[0], length=fixed[-1], shortest=_lower_bound(program, shape[-1]))
        self.program = program.module()

    def train(self, mode: bool = True) -> ExportedSeparator:
        """Evaluation or training was settled when the program was exported; it refuses to be asked."""
        self.training = mode
        return self

    def run(self, waveform: Tensor) -> Tensor:
        """Call it."""
        estimates: Tensor = self.program(waveform)
        return estimates


def _input_shape(program: torch.export.ExportedProgram) -> tuple[Any, ...]:
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1 or len(program.graph_signature.user_outputs) != 1:
        raise ValueError(f"the program has {len(inputs)} inputs: one, and one output, are needed")
    node = next(node for node in program.graph.nodes if node.name == inputs[0])
    return tuple(node.meta["val"].shape)


def _lower_bound(program: torch.export.ExportedProgram, size: Any) -> int:
    if isinstance(size, int):
        return 1
    bounds = program.range_constraints.get(size.node.expr)
    return int(bounds.lower) if bounds is not None else 1


def _screen(path: Path) -> None:
    """Raise a ValueError for a file that could run code when it is loaded or called."""
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = [name for name in archive.namelist() if "aotinductor" in name]
            graphs = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ValueError(f"'{path}' is not a program of torch.export: {one_line(error)}") from error
    if compiled:
        raise ValueError(
            f"'{path}' holds compiled code ({compiled[0]}): export it again with torch.export.save"
        )
    for key, text in (pair for graph in graphs for pair in _strings(graph)):
        pattern = {"expr_str": _EXPRESSION, "target": _TARGET}.get(key)
        if pattern is not None and not pattern.fullmatch(text):
            raise ValueError(
                f"'{path}' is refused: its {key} '{text[:60]}' is no plain operator or size of torch"
            )


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of nested JSON with the key that it stands under."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, key)
    elif isinstance(node, str):
        yield key, node
