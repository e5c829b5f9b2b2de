"""Several metrics of one batch at once, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from encore.metrics.table import SELF_CONSISTENCY_METRICS, TABLE, get_metric, score_rows


class MetricPanel:
    """Scores batches with every one of the named metrics.

    Args:
        names: Of `TABLE`, without the self-consistency metrics; repeated ones count once.
        sample_rate: Rate in Hz of the audio.
        workers: See `get_metric`.

    Raises:
        ValueError: If there are no names, a metric needs more than references, or as of `get_metric`.

    Example:
        >>> import torch
        >>> panel = MetricPanel(["si_sdr", "snr", "dnsmos_ovrl"], sample_rate=16000)
        >>> reference = torch.sin(torch.arange(1600.0))[None, None]
        >>> {name: round(score.item(), 1) for name, score in panel(0.9 * reference, reference).items()}["snr"]
        20.0
    """

    def __init__(self, names: Sequence[str], *, sample_rate: int, workers: int = 0) -> None:
        if not names:
            raise ValueError("names=[] is empty: give at least one of METRIC_NAMES")
        if guides := [name for name in names if name in SELF_CONSISTENCY_METRICS]:
            raise ValueError(
                f"names={guides} need the mixture: score with get_metric(name, ...).bind(mixture=...)"
            )
        self.names = tuple(
            dict.fromkeys(get_metric(name, sample_rate=sample_rate, workers=workers).name for name in names)
        )
        self.sample_rate, self.workers = sample_rate, workers

    def __call__(self, estimate: Tensor, reference: Tensor | None = None) -> dict[str, Tensor]:
        """Return for each metric the scores ``(n,)`` of ``(n, c, t)``, the mean over channels.

        Without references, of the same shape, the oracle metrics are left out.
        """
        names = [name for name in self.names if not (reference is None and TABLE[name].needs)]
        families: dict[object, list[str]] = {}
        for name in names:
            row = TABLE[name]
            families.setdefault(row.function if "names" in row.options else name, []).append(name)

        def score(family: list[str]) -> dict[str, Tensor]:
            signals = (reference,) if TABLE[family[0]].needs else ()
            return score_rows(family, self.sample_rate, self.workers, estimate.detach(), *signals)

        # the processes work on their metrics while this one computes the rest
        pooled = [f for f in families.values() if self.workers and "workers" in TABLE[f[0]].options]
        with ThreadPoolExecutor(max(1, len(pooled))) as threads:
            pending = [threads.submit(score, family) for family in pooled]
            found = [score(family) for family in families.values() if family not in pooled]
            found += [future.result() for future in pending]
        scores = {name: values for part in found for name, values in part.items()}
        return {name: scores[name] for name in names}
