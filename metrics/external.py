"""Metrics of your own: files that hold a graph, and functions of your own code.

    mos.pt?sample_rate=16000                       a graph: TorchScript, torch.export or ONNX
    python:mymetric:score?needs_reference=1        a function of your own code, which is run

See docs/measures.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.common.errors import one_line
from encore.common.files import check_file, file_kind
from encore.common.graphs import GRAPHS, load_graph
from encore.common.uri import Uri, check_scheme, convert_options, parse_uri
from encore.common.user_code import import_object, instantiate_class
from encore.metrics.quality import Metric


def is_external(name: str) -> bool:
    """Return whether a name is for `open_metric`: a URI, a path, or ``"utmos"``.

    >>> is_external("onnx:mos.onnx?sample_rate=16000"), is_external("pesq")
    (True, False)
    """
    return name == "utmos" or re.search(r"[:./\\]", name) is not None


def open_metric(name: str, *, sample_rate: int) -> Metric:
    """Open a metric, so that what is missing or wrong fails here and not in the middle of a run.

    Args:
        name: A graph, as ``FILE?key=value&...`` or with the scheme ``torchscript:``, ``exported:`` or
            ``onnx:``; or a function, or a class whose instance is called, as
            ``python:MODULE:NAME?key=value&...``. The options are those of `own_metric`.
        sample_rate: Rate in Hz of the audio that it scores.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no metric, an option is invalid, or the rate is below the metric's own.
    """
    if name == "utmos":
        raise ValueError(
            "name='utmos' is only published as code to be downloaded and executed: trace it once by "
            "torch.jit.trace and give torchscript:utmos.pt?sample_rate=16000&name=utmos, or use distillmos"
        )
    uri = parse_uri(name, argument="name")
    scheme = uri.scheme or _scheme_of_file(uri)
    check_scheme(uri, scheme, (*GRAPHS, "python"))
    options = convert_options(uri, own_metric)
    if scheme != "python" and "sample_rate" not in options:
        raise uri.fault(f"lacks the option 'sample_rate': add {'&' if options else '?'}sample_rate=...")
    return own_metric(scheme, uri.rest, sample_rate, **options)


def own_metric(
    kind: str,
    source: str,
    audio_rate: int,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    needs_reference: bool = False,
    negate: bool = False,
    scale: float | None = None,
    output: int | None = None,
) -> Metric:
    """Make a metric of a graph or a function; no gradients go through it.

    Args:
        kind: One of `encore.common.graphs.GRAPHS`, or ``"python"``.
        source: The file, or ``module:name``.
        audio_rate: Rate in Hz of the audio that it scores.
        sample_rate: Rate in Hz that it takes, audio of a higher rate is resampled; by default the audio's.
        name: What to call it; by default after the file or function.
        needs_reference: Whether it takes the reference as its second argument.
        negate: Whether lower is better.
        scale: The difference that counts as one unit where metrics are joined.
        output: Index of the number, where it returns several for a signal.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be opened, does not score noise, or an option is invalid.
    """
    default = source.rpartition(":")[2] if kind == "python" else Path(source).stem
    label = re.sub(r"[^a-z0-9]+", "_", (default if name is None else name).lower()).strip("_")
    rate = audio_rate if sample_rate is None else sample_rate
    if not label:
        raise ValueError(f"name='{default if name is None else name}' has no letter or digit: add name=")
    if not 0 < rate <= audio_rate:
        raise ValueError(
            f"sample_rate={audio_rate} is below the {rate} Hz of '{source}': use audio of a higher rate"
        )
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale={scale:g}: give a number above 0")
    return Metric(
        name=label,
        function=OwnScorer(
            kind, source, audio_rate, rate, 1 + needs_reference, -1.0 if negate else 1.0, output
        ),
        sample_rate=audio_rate,
        minimum_rate=sample_rate or 1,
        needs=("references",) * needs_reference,
        scale=scale,
    )


Layout = tuple[bool, bool, int]
"""How a function takes its signals: if one item at a time, if as NumPy arrays, and their axes."""


@dataclass(eq=False)
class OwnScorer:
    """A graph or function of the user's own, called as it takes its signals.

    It is called on noise to find its layout: tensors or NumPy arrays, of ``(n, t)``, whose scores are
    averaged over channels, or of ``(n, c, t)``, and whether it takes batches. A graph, and a function that
    fails on batches or mixes their items, is called item by item; a graph scores each channel by itself.

    Attributes:
        kind: As of `own_metric`, like ``source``, ``audio_rate`` and ``output``.
        rate: Rate in Hz that it takes.
        inputs: 2 if it takes references, else 1.
        sign: Factor of its numbers.
    """

    kind: str
    source: str
    audio_rate: int
    rate: int
    inputs: int
    sign: float
    output: int | None

    def __post_init__(self) -> None:
        self.is_graph = self.kind != "python"
        if self.is_graph:
            called: Any = load_graph(self.source, self.kind)
        else:
            called = instantiate_class(import_object(self.source), {})
        if not callable(called):
            raise ValueError(f"'{self.source}' is not callable ({type(called).__name__}): name a function")
        self.called = called
        self.layout = self._find_layout()

    def __reduce__(self) -> tuple[Any, ...]:
        # a runtime's session cannot be sent to another process, which opens the file itself
        return type(self), astuple(self)

    @torch.no_grad()
    def __call__(self, *signals: Tensor) -> Tensor:
        """Score estimates ``(n, c, t)``, and their references, ``(n,)``; NaN where a sample is not finite.

        Raises:
            ValueError: If it fails on them.
        """
        estimates = signals[0]
        prepared = [resample(x.detach().float(), self.audio_rate, self.rate, kernel="hann") for x in signals]
        if self.is_graph:
            prepared = [x.flatten(0, 1)[:, None] for x in prepared]
        finite = torch.stack([x.isfinite().flatten(1).all(1) for x in prepared]).all(0)
        scores = torch.full(finite.shape, torch.nan, device=estimates.device)
        if finite.any():
            try:
                # mixed precision, where it is on, would change the scores
                with torch.autocast(estimates.device.type, enabled=False):
                    numbers = self._scores([x[finite] for x in prepared], self.layout)
            except Exception as error:  # runtimes have exceptions of their own, and the user's code any
                raise ValueError(
                    f"'{self.source}' fails on estimates of shape {tuple(estimates.shape)}: {one_line(error)}"
                ) from error
            scores[finite] = numbers.to(scores.device)
        return self.sign * scores.reshape(len(estimates), -1).mean(1).to(estimates.dtype)

    def _scores(self, signals: list[Tensor], layout: Layout) -> Tensor:
        """Return the numbers ``(n,)`` of ``(n, c, t)``."""
        one_by_one, arrays, axes = layout
        items, device = len(signals[0]), torch.device("cpu") if self.kind == "onnx" else signals[0].device
        called = self.called.to(device) if self.is_graph else self.called
        rows: list[Any] = [(x if axes == 3 else x.flatten(0, 1)).to(device) for x in signals]
        if arrays:
            rows = [x.cpu().numpy() for x in rows]
        count = len(rows[0])
        size = 1 if one_by_one else count
        batches = [[x[first : first + size] for x in rows] for first in range(0, count, size)]
        results = [torch.as_tensor(called(*batch)).detach().float().flatten() for batch in batches]
        numbers = torch.cat([result.cpu() for result in results])
        if len(numbers) % count:
            raise ValueError(f"it returns {len(numbers)} numbers for {count} signals")
        numbers = numbers.reshape(count, -1)
        if self.output is None and numbers.shape[1] != 1:
            several = numbers.shape[1]
            raise ValueError(f"it returns {several} numbers for one signal: add output=N, 0 to {several - 1}")
        if (index := self.output or 0) >= numbers.shape[1]:
            raise ValueError(f"output={index}: it returns {numbers.shape[1]} numbers, counted from 0")
        return numbers[:, index].reshape(items, -1).mean(1)

    @torch.no_grad()
    def _find_layout(self) -> Layout:
        """Return the first layout in which noise is scored, item by item if a batch changes its scores."""
        generator = torch.Generator().manual_seed(0)
        # a graph may take one second and no other length; PESQ refuses a second that is cut to its utterances
        shape = (3, 1, round((1.0 if self.is_graph else 1.5) * self.rate))
        # with pauses, as PESQ refuses signals without utterances; at levels that differ, as mixed items would
        pulses = torch.sin(6 * math.pi * torch.arange(shape[-1]) / self.rate).clamp(min=0)
        levels = torch.tensor([0.2, 0.1, 0.05])[:, None, None]
        signals = [levels * pulses * torch.randn(shape, generator=generator)]
        if self.inputs == 2:
            signals.append(signals[0] + 0.01 * torch.randn(shape, generator=generator))
        faults = []
        choices = ((True,), (False,)) if self.is_graph else ((False, True), (False, True))
        for one_by_one, arrays, axes in product(*choices, (2, 3)):
            try:
                scores = self._scores(signals, (one_by_one, arrays, axes))
                alone = self._scores([x[:1] for x in signals], (one_by_one, arrays, axes))
            except Exception as error:  # as in __call__
                axes_given = f"({1 if one_by_one else 'n'}, {'t' if axes == 2 else 'c, t'})"
                faults.append(f"{'arrays' if arrays else 'tensors'} {axes_given}: {one_line(error)}")
                continue
            mixed = not torch.allclose(scores[:1], alone, rtol=1e-4, atol=1e-6, equal_nan=True)
            return one_by_one or mixed, arrays, axes
        raise ValueError(f"'{self.source}' scores no noise at {self.rate} Hz; {'; '.join(faults[:4])}")


def _scheme_of_file(uri: Uri) -> str:
    """Return the scheme of a graph by its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no graph.
    """
    kind = file_kind(check_file(uri.rest))
    if kind in ("pickle", "safetensors"):
        raise uri.fault(
            "holds weights without a network: give a graph (torch.jit.save, torch.export.save or ONNX), or "
            "--guide 'python:MODULE:FUNCTION?sample_rate=16000' for code that loads them"
        )
    if kind == "unknown":
        raise uri.fault(f"is not a graph: give {', '.join(GRAPHS)}, or python:MODULE:FUNCTION")
    return kind
