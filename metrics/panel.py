"""Several measures of one batch at once, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from encore.metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from encore.metrics.measures import MEASURES, resolve_name, score_measure, to_rate
from encore.metrics.processes import check_workers

_SINGLE_SIGNAL_MEASURES = ("pesq", "pesq_nb", "stoi", "estoi")


class MetricPanel:
    """Scores batches with every one of the named measures.

    Args:
        names: Of `METRIC_NAMES`; repeated ones count once.
        sample_rate: Rate in Hz of the audio that it will be given.
        workers: Processes for PESQ and STOI, which score one signal at a time on one core; 0 scores in this
            process. All panels and qualities share them, see `metrics.processes`. The values are the same.

    Attributes:
        names: The measures' own names, in the order of the results.

    Raises:
        ValueError: If there are no names, one is unknown, the rate is too low for one, or workers is
            negative.

    Example:
        >>> import torch
        >>> panel = MetricPanel(["si_sdr", "snr", "dnsmos_ovrl"], sample_rate=16000)
        >>> reference = torch.sin(torch.arange(1600.0))[None, None]
        >>> {name: round(score.item(), 1) for name, score in panel(0.9 * reference, reference).items()}["snr"]
        20.0
    """

    def __init__(self, names: Sequence[str], *, sample_rate: int, workers: int = 0) -> None:
        if not names:
            raise ValueError("names=[] measures nothing: give at least one of METRIC_NAMES")
        self.names = tuple(dict.fromkeys(resolve_name(name, sample_rate) for name in names))
        self.sample_rate = sample_rate
        self.workers = check_workers(workers)

    def __call__(
        self, estimate: Tensor, reference: Tensor | None = None, mixture: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Score a batch.

        Args:
            estimate: ``(batch, channel, time)``, full scale 1.
            reference: Same shape; without it the oracle measures are left out of the result.
            mixture: Same shape; no measure of the table looks at it.

        Returns:
            For each measure ``(batch,)``, higher is better, the mean over channels unless it takes them
            together; NaN where an item cannot be scored.
        """
        estimate = estimate.detach()
        names = [name for name in self.names if reference is not None or not MEASURES[name].needs_reference]
        pooled = [name for name in names if self.workers and name in _SINGLE_SIGNAL_MEASURES]
        blind = [name for name in names if name in DNSMOS_NAMES]
        scores: dict[str, Tensor] = {}
        # the processes work on their measures while this one computes the rest
        with ThreadPoolExecutor(max(1, len(pooled))) as threads:
            pending = {name: threads.submit(self._score, name, estimate, reference) for name in pooled}
            if blind:
                opinions = dnsmos(to_rate(estimate, self.sample_rate, DNSMOS_RATE), names=blind)
                scores |= {name: value.mean(-1) for name, value in opinions.items()}
            for name in names:
                if name not in scores and name not in pending:
                    scores[name] = self._score(name, estimate, reference)
            scores |= {name: future.result() for name, future in pending.items()}
        return {name: scores[name] for name in names}

    def _score(self, name: str, estimate: Tensor, reference: Tensor | None) -> Tensor:
        """Score ``(batch, channel, time)`` with one measure: ``(batch,)``."""
        return score_measure(name, estimate, reference, self.sample_rate, workers=self.workers)
