"""Measures that are files: a graph from a waveform to one number, as TorchScript or ONNX.

Both are run as graphs; nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encore.metrics.single_items import OnDevices, SingleItemQuality

Graph = Callable[[Sequence[Tensor]], Tensor]
"""``(estimate,)`` or ``(estimate, reference)``, with the axes that the file wants, to its first output."""

_PROBE_SECONDS = 1.0
_LAYOUTS = {"(batch, time)": (1, -1), "(batch, channel, time)": (1, 1, -1)}


class FileQuality(SingleItemQuality):
    """A file that maps ``(1, time)`` or ``(1, 1, time)``, whichever it takes, to one number.

    Args:
        runtime: One of `RUNTIMES`.
        path: The file.
        sample_rate: Rate in Hz of the audio that it will be given.
        rate: Rate in Hz that the file wants.
        name: What to call it; by default after the file.
        needs_reference: Whether the file takes the reference as its second input.
        negate: Whether lower is better.
        scale: The difference that counts as one unit where measures are joined.
        output: Which number, where the file gives several.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, or does not score a second of noise so, or the rate is too low.
    """

    def __init__(
        self,
        runtime: str,
        path: Path,
        *,
        sample_rate: int,
        rate: int,
        name: str | None = None,
        needs_reference: bool = False,
        negate: bool = False,
        scale: float | None = None,
        output: int | None = None,
    ) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"measure '{path}' does not exist or is not a file")
        if not 0 < rate <= sample_rate:
            raise ValueError(
                f"sample_rate={sample_rate} is below the {rate} Hz of '{path}': use audio of a higher rate"
            )
        self.name = re.sub(r"[^a-z0-9]+", "_", (path.stem if name is None else name).lower()).strip("_")
        if not self.name:
            raise ValueError(f"'{path}' has no letter or digit in its name: add name=")
        self.needs_reference, self.sample_rate, self.rate, self.scale = (
            needs_reference,
            sample_rate,
            rate,
            scale,
        )
        self._sign = -1.0 if negate else 1.0
        self._output = output
        self._path = path
        self._open = partial(
            FileQuality,
            runtime,
            path,
            sample_rate=sample_rate,
            rate=rate,
            name=name,
            needs_reference=needs_reference,
            negate=negate,
            scale=scale,
            output=output,
        )
        self._graph = RUNTIMES[runtime](path)
        self._shape = self._find_layout()

    def __reduce__(self) -> tuple[Any, ...]:
        # a runtime's session cannot be sent to another process, which opens the file itself
        return self._open, ()

    def score_signal(self, estimate: Tensor, reference: Tensor | None) -> float:
        """See `SingleItemQuality`.

        Raises:
            ValueError: If the file fails on the signal.
        """
        signals = (estimate,) if reference is None else (estimate, reference)
        try:
            outputs = self._graph([signal.reshape(self._shape) for signal in signals]).flatten()
        except Exception as error:  # each runtime has exceptions of its own
            raise ValueError(f"'{self._path}' fails on {len(estimate)} samples: {_reason(error)}") from error
        return self._sign * self._one_number(outputs)

    def _find_layout(self) -> tuple[int, ...]:
        """The shape that the file scores a second of noise in."""
        assert self.rate is not None
        generator = torch.Generator().manual_seed(0)
        noise = 0.1 * torch.randn(round(_PROBE_SECONDS * self.rate), generator=generator)
        signals = [noise, noise] if self.needs_reference else [noise]
        reasons = []
        for layout, shape in _LAYOUTS.items():
            try:
                with torch.no_grad():
                    outputs = self._graph([signal.reshape(shape) for signal in signals]).flatten()
            except Exception as error:  # each runtime has exceptions of its own
                reasons.append(f"{layout}: {_reason(error)}")
                continue
            self._one_number(outputs)
            return shape
        raise ValueError(f"'{self._path}' scores no second of noise at {self.rate} Hz; {'; '.join(reasons)}")

    def _one_number(self, outputs: Tensor) -> float:
        if self._output is None and len(outputs) != 1:
            raise ValueError(
                f"'{self._path}' gives {len(outputs)} numbers for one signal: add output=N, "
                f"0 to {len(outputs) - 1}"
            )
        index = self._output or 0
        if index >= len(outputs):
            raise ValueError(f"output={index}: '{self._path}' gives {len(outputs)} numbers, counted from 0")
        return float(outputs[index])


def _open_torchscript(path: Path) -> Graph:
    try:
        networks = OnDevices(torch.jit.load(str(path), map_location="cpu"))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"'{path}' is not a TorchScript file: {_reason(error)}") from error

    def run(signals: Sequence[Tensor]) -> Tensor:
        return _first(networks.on(signals[0].device)(*signals))

    return run


def _open_onnx(path: Path) -> Graph:
    # typed, but without saying what it exports
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base of their own
        raise ValueError(f"'{path}' is not an ONNX file that runs: {_reason(error)}") from error
    names = [put.name for put in session.get_inputs()]

    def run(signals: Sequence[Tensor]) -> Tensor:
        if len(names) != len(signals):
            raise ValueError(f"it takes {len(names)} inputs, not {len(signals)}")
        inputs = {name: signal.cpu().numpy() for name, signal in zip(names, signals, strict=True)}
        return torch.from_numpy(session.run(None, inputs)[0])

    return run


RUNTIMES: dict[str, Callable[[Path], Graph]] = {"torchscript": _open_torchscript, "onnx": _open_onnx}
"""What opens a file, by its scheme."""


def _first(outputs: Any) -> Tensor:
    first = outputs[0] if isinstance(outputs, tuple | list) else outputs
    if not isinstance(first, Tensor):
        raise ValueError(f"it returns a {type(first).__name__}, no tensor")
    return first


def _reason(error: Exception) -> str:
    """The last line of what went wrong, which in TorchScript's tracebacks is the reason."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
