"""The base of metrics by foreign networks: one signal at a time, so that no batch-mate can matter."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from threading import Lock

import torch
from torch import Tensor, nn

from encore.common.dsp import resample
from encore.metrics.quality import Metric

# a 16-bit file would hold zeros below it; scores that depend on the level mean nothing there
SILENCE = 2.0**-16


class SingleItemMetric(Metric):
    """Scores every channel of every item by itself, without gradients.

    Attributes:
        rate: Rate in Hz that audio is resampled to; None where it is scored at its own.
    """

    rate: int | None

    @abstractmethod
    def score_signal(self, estimate: Tensor, reference: Tensor | None) -> float:
        """Score finite ``(time,)`` at `rate`, higher is better; NaN where that is impossible."""

    @torch.no_grad()
    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        """See `Metric`. A signal with a non-finite sample scores NaN."""
        references = references if self.needs_reference else None
        given = None if references is None else tuple(references.shape)
        if self.needs_reference and given != estimates.shape:
            raise ValueError(f"references have shape {given}: {self.name!r} needs {tuple(estimates.shape)}")
        signals = self._signals(estimates)
        others = [None] * len(signals) if references is None else self._signals(references)
        # mixed precision, where it is on, would change the scores
        with torch.autocast(estimates.device.type, enabled=False):
            scores = [
                self.score_signal(signal, other) if signal.isfinite().all() else math.nan
                for signal, other in zip(signals, others, strict=True)
            ]
        return estimates.new_tensor(scores).reshape(len(estimates), -1).mean(-1)

    def _signals(self, signals: Tensor) -> list[Tensor]:
        rate = self.rate or self.sample_rate
        return list(resample(signals.detach().float(), self.sample_rate, rate, kernel="hann").flatten(0, -2))


class OnDevices:
    """A network, copied to each device that it is used on."""

    def __init__(self, network: nn.Module) -> None:
        self._networks = {torch.device("cpu"): network.eval()}
        self._lock = Lock()

    def on(self, device: torch.device) -> nn.Module:
        """Return the network on that device."""
        with self._lock:
            if device not in self._networks:
                self._networks[device] = copy.deepcopy(self._networks[torch.device("cpu")]).to(device)
            return self._networks[device]
