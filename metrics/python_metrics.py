"""Metrics in the user's own Python code: ``python:module:function``. Opening one runs that code."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.common.errors import one_line
from encore.common.user_code import import_object, instantiate_class
from encore.metrics.file_metrics import check_rate, check_scale, metric_name
from encore.metrics.quality import Metric

_PROBE_SECONDS = 1.5
_CALLS = {
    "tensors (n, t)": (2, False),
    "tensors (n, c, t)": (3, False),
    "arrays (n, t)": (2, True),
    "arrays (n, c, t)": (3, True),
}
"""What a function may take: number of axes, and whether NumPy arrays."""


class FunctionMetric(Metric):
    """A function of the user's own: estimates, or estimates and references, to a score for each.

    It is called on noise to find out whether it takes tensors or NumPy arrays, of ``(n, t)``, whose scores
    are averaged over channels, or of ``(n, c, t)``, and whether it takes batches: one that fails on them or
    mixes their items is called item by item. No gradients go through it.

    Args:
        function: ``module:name`` of a function, or of a class whose instance is called.
        audio_rate: Rate in Hz of the audio that it scores.
        sample_rate: Rate in Hz that it takes, audio of a higher rate is resampled; by default the audio's.
        name: What to call it; by default the function's name.
        needs_reference: Whether it takes the references as its second argument.
        negate: Whether lower is better.
        scale: The difference that counts as one unit where metrics are joined.

    Raises:
        ValueError: If it cannot be imported, does not score noise, or the rate is too low.
    """

    def __init__(
        self,
        function: str,
        audio_rate: int,
        *,
        sample_rate: int | None = None,
        name: str | None = None,
        needs_reference: bool = False,
        negate: bool = False,
        scale: float | None = None,
    ) -> None:
        self._options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self._function = instantiate_class(import_object(function), {})
        if not callable(self._function):
            raise ValueError(
                f"'{function}' is not callable ({type(self._function).__name__}): name a function"
            )
        self._path = function
        self.sample_rate, self.rate = audio_rate, check_rate(function, sample_rate or audio_rate, audio_rate)
        self.name = metric_name(function.rpartition(":")[2] if name is None else name)
        self.needs_reference, self.scale = needs_reference, check_scale(scale)
        self._sign = -1.0 if negate else 1.0
        self._find_call()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(FunctionMetric, **self._options), ()

    @torch.no_grad()
    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        """See `Metric`. An item with a sample that is not finite scores NaN.

        Raises:
            ValueError: If a reference is missing, or the function fails.
        """
        if self.needs_reference and references is None:
            raise ValueError(f"references=None: {self.name!r} is an oracle metric: give references")
        prepared = [
            resample(signal.detach().float(), self.sample_rate, self.rate, kernel="hann")
            for signal in (estimates, references if self.needs_reference else None)
            if signal is not None
        ]
        finite = torch.stack([signal.isfinite().flatten(1).all(1) for signal in prepared]).all(0)
        scores = torch.full((len(estimates),), torch.nan, device=estimates.device)
        if finite.any():
            try:
                # mixed precision, where it is on, would change the scores
                with torch.autocast(estimates.device.type, enabled=False):
                    scores[finite] = self._call(*(signal[finite] for signal in prepared))
            except Exception as error:  # the user's code raises what it likes
                shape = tuple(prepared[0].shape)
                raise ValueError(
                    f"'{self._path}' fails on estimates of shape {shape}: {one_line(error)}"
                ) from error
        return self._sign * scores.to(estimates.dtype)

    def _call(self, *signals: Tensor) -> Tensor:
        """Return the function's scores ``(n,)`` of ``(n, c, t)``."""
        items, channels = signals[0].shape[:2]
        given: list[Any] = [signal if self._axes == 3 else signal.flatten(0, 1) for signal in signals]
        if self._arrays:
            given = [signal.cpu().numpy() for signal in given]
        batches = [[signal[row : row + 1] for signal in given] for row in range(len(given[0]))]
        results = [self._function(*batch) for batch in (batches if self._one_by_one else [given])]
        scores = torch.cat([torch.as_tensor(result).detach().float().reshape(-1) for result in results])
        expected = items if self._axes == 3 else items * channels
        if len(scores) != expected:
            raise ValueError(f"it returns {len(scores)} scores for {expected} signals")
        return scores.reshape(items, -1).mean(1).to(signals[0].device)

    @torch.no_grad()
    def _find_call(self) -> None:
        """Set what the function is called with, by calling it on noise."""
        generator = torch.Generator().manual_seed(0)
        shape = (3, 1, round(_PROBE_SECONDS * self.rate))
        # with pauses, as PESQ refuses signals without utterances; at levels that differ, as mixed items would
        pulses = torch.sin(6 * math.pi * torch.arange(shape[-1]) / self.rate).clamp(min=0)
        levels = torch.tensor([0.2, 0.1, 0.05])[:, None, None]
        signals: tuple[Tensor, ...] = (levels * pulses * torch.randn(shape, generator=generator),)
        if self.needs_reference:
            signals += (signals[0] + 0.01 * torch.randn(shape, generator=generator),)
        faults = []
        for self._one_by_one in (False, True):
            for call, (self._axes, self._arrays) in _CALLS.items():
                try:
                    scores = self._call(*signals)
                    alone = self._call(*(signal[:1] for signal in signals))
                except Exception as error:  # the user's code raises what it likes
                    faults.append(f"{call}: {one_line(error)}")
                    continue
                if not torch.allclose(scores[:1], alone, rtol=1e-4, atol=1e-6, equal_nan=True):
                    self._one_by_one = True
                return
        raise ValueError(
            f"'{self._path}' scores no noise at {self.rate} Hz; {'; '.join(faults[: len(_CALLS)])}"
        )
