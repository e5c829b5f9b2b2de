"""Write a separator as a graph, with what it separates beside it, and open the file again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from encore.common.packages import require
from encore.models.export.spectral import RealValuedBSRNN, SpectralCore, transform_parameters
from encore.models.export.tracing import quiet, traceable
from encore.models.separators.bsrnn import BSRNN
from encore.models.types import Separator

METADATA_FILE = "encore.yaml"
"""Name of the extra file, in ``.pt2`` and ``.pt``, that says what a graph separates."""

METADATA_KEY = "encore"
"""Key of the same in an ONNX file's ``metadata_props``."""

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
    return SUFFIXES[path.suffix](path, separator, whole, seconds)


def write_program(
    path: Path, separator: nn.Module, _whole: bool, seconds: float | None
) -> tuple[Separator, Extent]:
    """Write ``torch.export``'s ``.pt2``; see `write`."""
    example = _example(separator, seconds)
    program, extent = _export(separator, example, seconds, time_axis=2)
    if extent.time is None:
        extent = replace(extent, shortest=_shortest(program.module(), example))
    text = _metadata(separator, extent)
    with warnings.catch_warnings():
        # about its own buffers
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={METADATA_FILE: text})
        return torch.export.load(path).module(), extent


def write_onnx(
    path: Path, separator: nn.Module, whole: bool, seconds: float | None
) -> tuple[Separator, Extent]:
    """Write ``.onnx``; see `write`."""
    # onnxscript is what torch converts with, onnxruntime opens the file again
    onnx, *_ = (
        require(name, needed_by=f"'{path}'", extra="onnx") for name in ("onnx", "onnxscript", "onnxruntime")
    )
    example = _example(separator, seconds)
    extra: dict[str, Any] = {}
    if isinstance(separator, BSRNN) and not whole:
        program, extent = _export_core(separator, example, seconds)
        inputs, outputs = ["spectrum"], ["masks", "residuals"]
        extra = {"transform": transform_parameters(separator)}
    else:
        module = RealValuedBSRNN(separator) if isinstance(separator, BSRNN) else separator
        program, extent = _export(module, example, seconds, time_axis=2)
        inputs, outputs = ["mixture"], ["estimates"]
    try:
        with quiet(), warnings.catch_warnings(), traceable(separator):
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=inputs, output_names=outputs
            )
    except Exception as error:  # whatever torch's converter, and what it calls, cannot do
        raise ValueError(f"{_network_name(separator)} has no ONNX form: {_reason(error)}") from error
    assert converted is not None
    model = converted.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: _metadata(separator, extent, extra)})
    onnx.save(model, path)
    run = _onnx_function(path)
    return (_core_function(separator, run) if extent.part == "core" else lambda x: run(x)[0]), extent


def write_torchscript(
    path: Path, separator: nn.Module, _whole: bool, seconds: float | None
) -> tuple[Separator, Extent]:
    """Write TorchScript's ``.pt``, which torch calls deprecated; see `write`."""
    example = _example(separator, seconds)
    try:
        with quiet(), warnings.catch_warnings(), traceable(separator, script=True):
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(separator, (example,), check_trace=False)  # type: ignore[no-untyped-call]
            extent = Extent(time=None if seconds is None else example.shape[-1])
            files = {METADATA_FILE: _metadata(separator, extent)}
            torch.jit.save(traced, str(path), _extra_files=files)
            return torch.jit.load(str(path)), extent  # type: ignore[no-untyped-call]
    except Exception as error:  # a trace runs the network's own code, which may raise anything
        raise ValueError(f"{_network_name(separator)} cannot be traced: {_reason(error)}") from error


SUFFIXES: Mapping[str, Callable[[Path, nn.Module, bool, float | None], tuple[Separator, Extent]]] = {
    ".pt2": write_program,
    ".onnx": write_onnx,
    ".pt": write_torchscript,
}
"""What writes a file, by its suffix."""


def _export_core(separator: BSRNN, example: Tensor, seconds: float | None) -> tuple[Any, Extent]:
    spectrum = torch.view_as_real(separator.transform(example[:, 0])).contiguous()
    program, extent = _export(SpectralCore(separator), spectrum, seconds, time_axis=1)
    time = None if extent.time is None else example.shape[-1]
    return program, Extent(batch=extent.batch, time=time, part="core")


def _export(
    module: nn.Module, example: Tensor, seconds: float | None, *, time_axis: int
) -> tuple[Any, Extent]:
    """Export for any batch; for any length, or the example's; for one item where any batch is impossible."""
    free = torch.export.Dim.DYNAMIC
    time = None if seconds is None else example.shape[time_axis]
    shapes = {0: free} if time is not None else {0: free, time_axis: free}
    try:
        return _exported(module, example, shapes), Extent(time=time)
    except Exception as error:  # export runs the network's own code, and reports its limits in many types
        if time is None:
            raise ValueError(
                f"{_network_name(module)} is not exported for any length; fix one by --seconds S: "
                f"{_reason(error)}"
            ) from error
    try:
        return _exported(module, example[:1], {}), Extent(batch=1, time=time)
    except Exception as error:
        raise ValueError(f"{_network_name(module)} cannot be exported: {_reason(error)}") from error


def _exported(module: nn.Module, example: Tensor, shapes: Mapping[int, Any]) -> Any:
    with quiet(), warnings.catch_warnings(), traceable(module):
        warnings.simplefilter("ignore")
        return torch.export.export(module, (example,), dynamic_shapes=(dict(shapes),), strict=False)


@torch.no_grad()
def _shortest(run: Separator, example: Tensor) -> int:
    """The fewest samples that a program takes; those of recurrent networks refuse a single frame."""
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
    """Two items of noise, as one would be taken for a constant."""
    time = round((_EXAMPLE_SECONDS if seconds is None else seconds) * int(separator.sample_rate))
    if seconds is None:
        # a whole number of frames would be taken for the rule
        while any(time % prime == 0 for prime in (2, 3, 5, 7)):
            time += 1
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, int(separator.channels), time, generator=generator)


def _metadata(separator: Any, extent: Extent, extra: Mapping[str, Any] | None = None) -> str:
    content = {
        "sources": list(separator.sources),
        "sample_rate": int(separator.sample_rate),
        "channels": int(separator.channels),
        "layout": "(batch, channel, time) to (batch, source, channel, time)",
        "part": extent.part,
        "batch": extent.batch,
        "time": extent.time,
        "shortest": extent.shortest,
        **(extra or {}),
    }
    return yaml.safe_dump(content, sort_keys=False)


def _onnx_function(path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    onnxruntime: Any = require("onnxruntime", needed_by=f"'{path}'", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: tuple(torch.from_numpy(out) for out in session.run(None, {name: x.numpy()}))


def _core_function(separator: nn.Module, run: Callable[[Tensor], tuple[Tensor, ...]]) -> Separator:
    """The separator with its core replaced by the written one."""
    around: Any = copy.copy(separator)
    around._predict = lambda spectrum: run(spectrum.contiguous())
    return around


def _network_name(module: nn.Module) -> str:
    network = getattr(module, "separator", module)
    inner = getattr(network, "network", None)
    return type(network if inner is None else inner).__name__


def _reason(error: BaseException) -> str:
    """The first line of an exception, of the innermost one: converters wrap theirs."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
