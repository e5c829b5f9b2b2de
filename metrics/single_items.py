"""The base of measures by foreign networks: one signal at a time, so that no batch-mate can matter."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from threading import Lock

import torch
from torch import Tensor, nn

from encore.metrics.measures import to_rate
from encore.metrics.quality import Quality

# a 16-bit file would hold zeros below it
SILENCE = 2.0**-16


class SingleItemQuality(Quality):
    """Scores every channel of every item by itself, without gradients.

    Attributes:
        rate: Rate in Hz that audio is resampled to; None where it is scored at its own.
        scale: The difference that counts as one unit where measures are joined; None where nobody said.
    """

    rate: int | None
    scale: float | None

    @abstractmethod
    def score_signal(self, estimate: Tensor, reference: Tensor | None) -> float:
        """Score finite ``(time,)`` at `rate`, higher is better; NaN where that is impossible."""

    @torch.no_grad()
    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; also takes ``(batch, time)``. A signal with a non-finite sample scores NaN."""
        if self.needs_reference and reference is None:
            raise ValueError(
                f"reference=None: oracle measure {self.name!r} needs reference=, or use a blind measure"
            )
        signals = self._prepared(estimate)
        references: list[Tensor | None] = [None] * len(signals)
        if self.needs_reference and reference is not None:
            if reference.shape != estimate.shape:
                raise ValueError(
                    f"reference has shape {tuple(reference.shape)}, the estimate {tuple(estimate.shape)}: "
                    "give the same"
                )
            references = list(self._prepared(reference))
        # mixed precision, where it is on, would change the scores
        with torch.autocast(estimate.device.type, enabled=False):
            scores = [
                self.score_signal(signal, other) if signal.isfinite().all() else math.nan
                for signal, other in zip(signals, references, strict=True)
            ]
        table = torch.tensor(scores, dtype=estimate.dtype, device=estimate.device)
        return table.reshape(estimate.shape[0], -1).mean(-1)

    def _prepared(self, signals: Tensor) -> Tensor:
        resampled = to_rate(signals.detach().float(), self.sample_rate, self.rate or self.sample_rate)
        return resampled.reshape(-1, resampled.shape[-1])


class OnDevices:
    """A network on every device that it has been asked for, copied when it is."""

    def __init__(self, network: nn.Module) -> None:
        self._networks = {torch.device("cpu"): network.eval()}
        self._lock = Lock()

    def on(self, device: torch.device) -> nn.Module:
        """The network on that device."""
        with self._lock:
            if device not in self._networks:
                self._networks[device] = copy.deepcopy(self._networks[torch.device("cpu")]).to(device)
            return self._networks[device]
