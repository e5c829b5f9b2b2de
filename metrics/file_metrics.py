"""Metrics that are files: a graph from a waveform to one number."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encore.common.errors import one_line
from encore.common.graphs import OnnxGraph, load_graph
from encore.metrics.single_items import OnDevices, SingleItemMetric

_LAYOUTS = {"(batch, time)": (1, -1), "(batch, channel, time)": (1, 1, -1)}


class FileMetric(SingleItemMetric):
    """A file that maps ``(1, time)`` or ``(1, 1, time)``, whichever it takes, to one number.

    Args:
        kind: One of `encore.common.graphs.GRAPHS`.
        path: The file.
        audio_rate: Rate in Hz of the audio that it scores.
        sample_rate: Rate in Hz that the file takes; audio of a higher rate is resampled.
        name: What to call it; by default after the file.
        needs_reference: Whether the file takes the reference as its second input.
        negate: Whether lower is better.
        scale: The difference that counts as one unit where metrics are joined.
        output: Index of the number, where the file returns several.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, does not score a second of noise, or the rate is too low.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        audio_rate: int,
        *,
        sample_rate: int,
        name: str | None = None,
        needs_reference: bool = False,
        negate: bool = False,
        scale: float | None = None,
        output: int | None = None,
    ) -> None:
        self._path = path
        self._options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        graph = load_graph(path, kind)
        self.sample_rate, self.rate = audio_rate, check_rate(path, sample_rate, audio_rate)
        self.name = metric_name(path.stem if name is None else name)
        self.needs_reference, self.scale = needs_reference, check_scale(scale)
        self._sign, self._output = -1.0 if negate else 1.0, output
        self._graphs = None if isinstance(graph, OnnxGraph) else OnDevices(graph)
        self._graph = graph
        self._shape = self._find_layout(self.rate)

    def __reduce__(self) -> tuple[Any, ...]:
        # a runtime's session cannot be sent to another process, which opens the file itself
        return partial(FileMetric, **self._options), ()

    def score_signal(self, estimate: Tensor, reference: Tensor | None) -> float:
        """See `SingleItemMetric`.

        Raises:
            ValueError: If the file fails on the signal.
        """
        signals = (estimate,) if reference is None else (estimate, reference)
        try:
            numbers = self._run(signals, self._shape)
        except Exception as error:  # each runtime has exceptions of its own
            raise ValueError(f"'{self._path}' fails on {len(estimate)} samples: {one_line(error)}") from error
        return self._sign * self._one_number(numbers)

    def _run(self, signals: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        if self._graphs is None:
            # graphs of ONNX score on the CPU, whatever runs the separator
            outputs: Tensor = self._graph(*(signal.cpu().reshape(shape) for signal in signals))
        else:
            outputs = self._graphs.on(signals[0].device)(*(signal.reshape(shape) for signal in signals))
        return outputs.flatten()

    def _find_layout(self, rate: int) -> tuple[int, ...]:
        """Return the shape in which the file scores a second of noise."""
        noise = 0.1 * torch.randn(rate, generator=torch.Generator().manual_seed(0))
        reasons = []
        for layout, shape in _LAYOUTS.items():
            try:
                with torch.no_grad():
                    numbers = self._run((noise, noise) if self.needs_reference else (noise,), shape)
            except Exception as error:  # each runtime has exceptions of its own
                reasons.append(f"{layout}: {one_line(error)}")
                continue
            self._one_number(numbers)
            return shape
        raise ValueError(f"'{self._path}' scores no second of noise at {rate} Hz; {'; '.join(reasons)}")

    def _one_number(self, numbers: Tensor) -> float:
        if self._output is None and len(numbers) != 1:
            raise ValueError(
                f"'{self._path}' returns {len(numbers)} numbers for one signal: add output=N, "
                f"0 to {len(numbers) - 1}"
            )
        index = self._output or 0
        if index >= len(numbers):
            raise ValueError(f"output={index}: '{self._path}' returns {len(numbers)} numbers, counted from 0")
        return float(numbers[index])


def metric_name(text: str) -> str:
    """Return a name made of a-z, 0-9 and ``_``.

    Raises:
        ValueError: If nothing is left of it.
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if not name:
        raise ValueError(f"name='{text}' has no letter or digit: add name=")
    return name


def check_rate(source: object, rate: int, audio_rate: int) -> int:
    """Return the rate of a metric, if the audio has it or a higher one.

    Raises:
        ValueError: If it has not.
    """
    if not 0 < rate <= audio_rate:
        raise ValueError(
            f"sample_rate={audio_rate} is below the {rate} Hz of '{source}': use audio of a higher rate"
        )
    return rate


def check_scale(scale: float | None) -> float | None:
    """Return a scale that is None or a positive number.

    Raises:
        ValueError: If it is neither.
    """
    if scale is not None and not 0 < scale < float("inf"):
        raise ValueError(f"scale={scale:g}: give a number above 0")
    return scale
