"""Write a separator as a graph, with what it separates beside it; open the file again and compare it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import file_kind
from encore.common.graphs import METADATA, load_graph
from encore.common.packages import require
from encore.models.export.spectral import RealValuedBSRNN, transform_parameters
from encore.models.export.tracing import traceable
from encore.models.separators.bsrnn import BSRNN
from encore.models.types import Separator

_EXAMPLE_SECONDS = 0.51


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Which inputs a written graph takes.

    Attributes:
        batch: The only batch size; None for any.
        time: The only number of samples; None for any.
        shortest: The fewest samples, where it is not one length only.
        part: ``"whole"``, from waveform to waveform, or ``"core"``, between the transforms.
    """

    batch: int | None = None
    time: int | None = None
    shortest: int = 1
    part: str = "whole"

    def describe(self) -> str:
        """In words, for people."""
        batch = "any batch" if self.batch is None else f"batches of {self.batch} only"
        time = "any length" if self.shortest == 1 else f"any length from {self.shortest} samples"
        if self.time is not None:
            time = f"{self.time} samples only"
        return f"{self.part}, {batch}, {time}"


def write(
    path: str | Path, separator: nn.Module, *, whole: bool = False, seconds: float | None = None
) -> tuple[Separator, Extent]:
    """Write a separator in the format of the file's suffix, one of `SUFFIXES`.

    Args:
        path: File to write; replaced if it exists, missing folders made.
        separator: With ``sources``, ``sample_rate`` and ``channels``, on the CPU, in evaluation mode.
        whole: For ``.onnx`` of a spectral network: put the transforms into the graph, as convolutions.
            Networks on waveforms are written whole in any case, as is every network in the other formats.
        seconds: Fix the length of the mixture to this.

    Returns:
        The file, opened again, as a function from ``(b, c, t)`` to ``(b, s, c, t)``, and what it takes.

    Raises:
        ValueError: If the suffix is unknown, an option makes no sense or a package is missing, or the network
            cannot be exported so.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"'{path}' ends in '{path.suffix}': choose one of .safetensors, {', '.join(SUFFIXES)}"
        )
    if whole and path.suffix != ".onnx":
        raise ValueError(f"--whole is for .onnx: leave it out, '{path.suffix}' files are always whole")
    if seconds is not None and not seconds * int(separator.sample_rate) >= 1:  # type: ignore[arg-type]
        raise ValueError(f"--seconds {seconds:g} is no sample: give a positive length")
    path.parent.mkdir(parents=True, exist_ok=True)
    extent = SUFFIXES[path.suffix](path, separator, whole, seconds)
    graph = load_graph(path, file_kind(path))
    if extent.part == "whole":
        return graph, extent
    # the separator with its core replaced by the written one
    around: Any = copy.copy(separator)
    around._predict = graph.call
    return around, extent


def write_program(path: Path, separator: nn.Module, _whole: bool, seconds: float | None) -> Extent:
    """Write ``torch.export``'s ``.pt2``; see `write`."""
    example = _example(separator, seconds)
    program, extent = _export(separator, example, seconds, time_axis=2)
    if extent.time is None:
        extent = replace(extent, shortest=_shortest(program.module(), example))
    with traceable(separator, "cannot be saved"):
        torch.export.save(program, path, extra_files=_metadata(separator, extent))
    return extent


def write_onnx(path: Path, separator: nn.Module, whole: bool, seconds: float | None) -> Extent:
    """Write ``.onnx``; see `write`."""
    # onnxscript is what torch converts with, onnxruntime opens the file again
    onnx, *_ = (
        require(name, needed_by=f"'{path}'", extra="onnx") for name in ("onnx", "onnxscript", "onnxruntime")
    )
    example = _example(separator, seconds)
    module, time_axis, names = separator, 2, (["mixture"], ["estimates"])
    description: dict[str, Any] = {}
    if isinstance(separator, BSRNN) and not whole:
        description = {"transform": transform_parameters(separator)}
        module, time_axis, names = copy.copy(separator), 1, (["spectrum"], ["masks", "residuals"])
        module.forward = separator._predict  # type: ignore[assignment, method-assign]
        shown = torch.view_as_real(separator.transform(example[:, 0])).contiguous()
    else:
        shown = example
        if isinstance(separator, BSRNN):
            module = RealValuedBSRNN(separator)
    program, extent = _export(module, shown, seconds, time_axis=time_axis)
    if description:
        extent = replace(extent, part="core", time=None if extent.time is None else example.shape[-1])
    with traceable(separator, "has no ONNX form"):
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=names[0], output_names=names[1]
        )
    assert converted is not None
    model = converted.model_proto
    (about,) = _metadata(separator, extent, description).values()
    onnx.helper.set_model_props(model, {METADATA: about})
    onnx.save(model, path)
    return extent


def write_torchscript(path: Path, separator: nn.Module, _whole: bool, seconds: float | None) -> Extent:
    """Write TorchScript's ``.pt``, which torch calls deprecated; see `write`."""
    example = _example(separator, seconds)
    extent = Extent(time=None if seconds is None else example.shape[-1])
    with traceable(separator, "cannot be traced", script=True):
        traced = torch.jit.trace(separator, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files=_metadata(separator, extent))
    return extent


SUFFIXES: Mapping[str, Callable[[Path, nn.Module, bool, float | None], Extent]] = {
    ".pt2": write_program,
    ".onnx": write_onnx,
    ".pt": write_torchscript,
}
"""What writes a file, by its suffix."""


def _export(
    module: nn.Module, example: Tensor, seconds: float | None, *, time_axis: int
) -> tuple[Any, Extent]:
    """Export for any batch; for any length, or the example's; for one item where any batch is impossible."""
    free = torch.export.Dim.DYNAMIC
    if seconds is None:
        failure = "is not exported for any length; fix one by --seconds S"
        return _exported(module, example, {0: free, time_axis: free}, failure), Extent()
    time, failure = example.shape[time_axis], "cannot be exported"
    try:
        return _exported(module, example, {0: free}, failure), Extent(time=time)
    except ValueError:
        return _exported(module, example[:1], {}, failure), Extent(batch=1, time=time)


def _exported(module: nn.Module, example: Tensor, shapes: Mapping[int, Any], failure: str) -> Any:
    with traceable(module, failure):
        return torch.export.export(module, (example,), dynamic_shapes=(dict(shapes),), strict=False)


@torch.no_grad()
def _shortest(run: Separator, example: Tensor) -> int:
    """Return the fewest samples that a program takes; those of recurrent networks refuse a single frame."""
    refused, taken = 0, example.shape[-1]
    while taken - refused > 1:
        middle = (refused + taken) // 2
        try:
            run(example[..., :middle])
            taken = middle
        except AssertionError:  # the conditions that torch.export puts before a program
            refused = middle
    return taken


def _example(separator: Any, seconds: float | None) -> Tensor:
    """Return two items of noise, as one would be taken for a constant."""
    time = round((_EXAMPLE_SECONDS if seconds is None else seconds) * int(separator.sample_rate))
    if seconds is None:
        # a whole number of frames would be taken for the rule
        while any(time % prime == 0 for prime in (2, 3, 5, 7)):
            time += 1
    return _noise(2, int(separator.channels), time)


def _metadata(separator: Any, extent: Extent, description: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the file of YAML in a graph that says what it separates."""
    content = {
        "sources": list(separator.sources),
        "sample_rate": int(separator.sample_rate),
        "channels": int(separator.channels),
        "layout": "(batch, channel, time) to (batch, source, channel, time)",
        **asdict(extent),
        **(description or {}),
    }
    return {f"{METADATA}.yaml": yaml.safe_dump(content, sort_keys=False)}


def largest_difference(written: Separator, separator: Any, extent: Extent) -> float:
    """Compare a written file with its separator on white noise of rms 0.1, of two lengths and batch sizes.

    Args:
        written: What the file computes.
        separator: What it should compute; with ``sample_rate`` and ``channels``.
        extent: Where the file takes one length or batch size only, that one is compared.

    Returns:
        The largest absolute difference over the estimates' largest magnitude; infinite where shapes differ,
        NaN where a sample is.

    Raises:
        ValueError: If the file does not take the noise.
    """
    rate = int(separator.sample_rate)
    # an odd number of samples, and whole frames of most networks
    times = (round(0.37 * rate) | 1, rate) if extent.time is None else (extent.time,)
    batches = (1, 3) if extent.batch is None else (extent.batch,)
    differences = [
        _difference(written, separator, _noise(batch, int(separator.channels), time, seed=1))
        for batch in batches
        for time in times
    ]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


@torch.no_grad()
def _difference(written: Separator, separator: Separator, mixture: Tensor) -> float:
    expected = separator(mixture)
    try:
        estimates = written(mixture)
    except Exception as error:  # each runtime has exceptions of its own
        raise ValueError(
            f"the file fails on a mixture of shape {tuple(mixture.shape)}: {one_line(error)}; fix the length "
            "by --seconds S"
        ) from error
    if estimates.shape != expected.shape:
        return math.inf
    return float((estimates - expected).abs().max() / expected.abs().max())


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
