"""Several measures of one batch at once, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from metrics.measures import MEASURES, resolve_name, score_measure, to_rate

_SINGLE_SIGNAL_MEASURES = ("pesq", "pesq_nb", "stoi", "estoi")


class MetricPanel:
    """Scores batches with every one of the named measures.

    Args:
        names: Of `METRIC_NAMES`; repeated ones count once.
        sample_rate: Rate in Hz of the audio that it will be given.
        workers: Processes for PESQ and STOI, which score one signal at a time on one core; 0 scores in this
            process. Processes start with the first batch and stop with `close`, or at the end of a ``with``
            block; a script that uses them needs the usual ``if __name__ == "__main__":``.

    Attributes:
        names: The measures' own names, in the order of the results.

    Raises:
        ValueError: If there are no names, one is unknown, the rate is too low for one, or workers is
            negative.

    Example:
        >>> panel = MetricPanel(["si_sdr", "snr", "dnsmos_ovrl"], sample_rate=16000)
        >>> reference = torch.sin(torch.arange(1600.0))[None, None]
        >>> {name: round(score.item(), 1) for name, score in panel(0.9 * reference, reference).items()}["snr"]
        20.0
    """

    def __init__(self, names: Sequence[str], *, sample_rate: int, workers: int = 0) -> None:
        if not names:
            raise ValueError("names=[] measures nothing: give at least one of METRIC_NAMES")
        if workers < 0:
            raise ValueError(f"workers={workers} is negative: give 0 to score in this process")
        self.names = tuple(dict.fromkeys(resolve_name(name, sample_rate) for name in names))
        self.sample_rate = sample_rate
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def __call__(
        self, estimate: Tensor, reference: Tensor | None = None, mixture: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Score a batch.

        Args:
            estimate: ``(batch, channel, time)``, full scale 1.
            reference: Same shape; without it the oracle measures are left out of the result.
            mixture: Same shape; no measure of the table looks at it.

        Returns:
            For each measure ``(batch,)``, higher is better, the mean over channels; NaN where an item cannot
            be scored.
        """
        estimate = estimate.detach()
        names = [name for name in self.names if reference is not None or not MEASURES[name].needs_reference]
        # the pool works on its signals while this process scores the rest
        pending = self._submit(names, estimate, reference) if self.workers else {}
        blind = [name for name in names if name in DNSMOS_NAMES]
        scores = {}
        if blind:
            scores.update(dnsmos(to_rate(estimate, self.sample_rate, DNSMOS_RATE), names=blind))
        for name in names:
            if name not in scores and name not in pending:
                scores[name] = score_measure(name, estimate, reference, self.sample_rate)
        for name, futures in pending.items():
            scores[name] = torch.tensor([future.result() for future in futures], device=estimate.device)
        return {name: scores[name].mean(-1) for name in names}

    def close(self) -> None:
        """Stop the worker processes; a later call starts them again."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def __enter__(self) -> MetricPanel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _submit(
        self, names: Sequence[str], estimate: Tensor, reference: Tensor | None
    ) -> dict[str, list[Future[list[float]]]]:
        """Send each item of each measure of single signals to the pool; a future gives ``(channel,)``."""
        pooled = [name for name in names if name in _SINGLE_SIGNAL_MEASURES]
        if not pooled or reference is None:
            return {}
        if self._executor is None:
            # a forked process would inherit torch's threads in a state that can hang
            self._executor = ProcessPoolExecutor(
                self.workers,
                mp_context=get_context("spawn"),
                initializer=torch.set_num_threads,
                initargs=(1,),
            )
        pairs = list(zip(estimate.cpu().numpy(), reference.detach().cpu().numpy(), strict=True))
        return {
            name: [self._executor.submit(_score_channels, name, *pair, self.sample_rate) for pair in pairs]
            for name in pooled
        }


def _score_channels(
    name: str, estimate: NDArray[np.float32], reference: NDArray[np.float32], sample_rate: int
) -> list[float]:
    """Score ``(channel, time)`` in a worker; arrays, as tensors would travel through shared memory files."""
    return score_measure(name, torch.from_numpy(estimate), torch.from_numpy(reference), sample_rate).tolist()
