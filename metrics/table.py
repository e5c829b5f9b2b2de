"""The table of metrics: their names, the audio that they take and what a difference in each is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from torch import Tensor

from encore.common.dsp import resample
from encore.common.names import nearest
from encore.common.packages import require
from encore.metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from encore.metrics.music import csdr, usdr
from encore.metrics.quality import Metric
from encore.metrics.reference import STOI_MINIMUM_RATE, estoi, pesq, sdr, si_sdr, snr, stoi
from encore.metrics.single_signals import PESQ_RATES


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A metric of the table.

    Attributes:
        score: ``(estimates (..., time), references) -> (...)``; a blind metric takes no references.
        options: Arguments that ``score`` takes by name, of ``sample_rate`` and ``workers``.
        scale: A difference that counts as one unit where metrics are joined.
        needs_reference: Whether it is an oracle metric.
        rate: Rate in Hz that audio is resampled to; None where audio is scored at its own rate.
        minimum_rate: Lowest rate in Hz of the audio that can be scored.
        differentiable: Whether derivatives go through it.
        together: Whether it takes the channels of an item together: ``(..., channel, time) -> (...)``.
        fix: What to do with audio of a lower rate.
        package: An optional package that it needs.
    """

    score: Callable[..., Tensor]
    options: tuple[str, ...] = ()
    scale: float = 1.0
    needs_reference: bool = True
    rate: int | None = None
    minimum_rate: int = 1
    differentiable: bool = False
    together: bool = False
    fix: str = "use audio of a higher rate"
    package: str | None = None


def _pesq(mode: str, fix: str) -> Entry:
    score, rate = partial(pesq, mode=mode), PESQ_RATES[mode]
    return Entry(
        score=score,
        options=("workers",),
        scale=0.1,
        rate=rate,
        minimum_rate=rate,
        fix=fix,
        package="pesq",
    )


def _stoi(score: Callable[..., Tensor]) -> Entry:
    return Entry(score=score, options=("sample_rate", "workers"), scale=0.01, minimum_rate=STOI_MINIMUM_RATE)


def _dnsmos(name: str) -> Entry:
    return Entry(
        score=lambda estimates: dnsmos(estimates, names=(name,))[name],
        scale=0.1,
        needs_reference=False,
        rate=DNSMOS_RATE,
        minimum_rate=DNSMOS_RATE,
        differentiable=True,
        fix="leave it out, or use audio of a higher rate",
    )


TABLE: dict[str, Entry] = {
    "si_sdr": Entry(score=si_sdr, differentiable=True),
    "sdr": Entry(score=sdr, differentiable=True),
    "snr": Entry(score=snr, differentiable=True),
    "usdr": Entry(score=usdr, differentiable=True, together=True),
    "csdr": Entry(score=csdr, options=("sample_rate",), together=True),
    "pesq": _pesq("wb", fix="use 'pesq_nb', or audio of a higher rate"),
    "pesq_nb": _pesq("nb", fix="use audio of a higher rate"),
    "stoi": _stoi(stoi),
    "estoi": _stoi(estoi),
    **{name: _dnsmos(name) for name in DNSMOS_NAMES},
}
METRIC_NAMES = tuple(TABLE)
"""Every metric of the project."""

ALIASES = {"pesq_wb": "pesq"}


class TableMetric(Metric):
    """A metric of the table, the mean over channels unless it takes them together.

    Args:
        name: One of `METRIC_NAMES`, or ``"pesq_wb"`` for ``"pesq"``.
        sample_rate: Rate in Hz of the audio; a higher one than the metric's own is resampled.
        workers: Processes that PESQ and STOI spread a batch over, with the same values; 0 scores in this
            process. All metrics share them, see `encore.metrics.processes`.

    Raises:
        ValueError: If the name is unknown, the rate is below the metric's own, workers is negative, or the
            package that computes it is not installed.
    """

    def __init__(self, name: str, *, sample_rate: int, workers: int = 0) -> None:
        self.name = ALIASES.get(name, name)
        if self.name not in TABLE:
            raise ValueError(unknown_metric(name, METRIC_NAMES))
        entry = TABLE[self.name]
        if sample_rate < entry.minimum_rate:
            needed = f"the {entry.minimum_rate} Hz that {name!r} needs"
            raise ValueError(f"sample_rate={sample_rate} is below {needed}: {entry.fix}")
        if entry.package is not None:
            require(entry.package, needed_by=f"metric {name!r}", extra="metrics")
        if workers < 0:
            raise ValueError(f"workers={workers} is negative: give 0 to score in this process")
        self.sample_rate, self.workers = sample_rate, workers
        self.needs_reference, self.differentiable = entry.needs_reference, entry.differentiable
        self.scale, self.minimum_rate = entry.scale, entry.minimum_rate

    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        """See `Metric`; in the metric's unit."""
        entry = TABLE[self.name]
        signals = (estimates, references) if entry.needs_reference else (estimates,)
        rate = entry.rate or self.sample_rate
        resampled = [resample(x, self.sample_rate, rate, kernel="hann") for x in signals if x is not None]
        if len(resampled) < len(signals):
            raise ValueError(f"references=None: {self.name!r} is an oracle, give them or use a blind metric")
        options = {"sample_rate": rate, "workers": self.workers}
        scores = entry.score(*resampled, **{name: options[name] for name in entry.options})
        return scores if entry.together else scores.mean(-1)


def default_metrics(sample_rate: int, channels: int = 1, *, has_reference: bool = True) -> list[str]:
    """Return the names of the metrics that audio is scored with by default.

    All that can score audio of this rate in Hz; those of music, which take channels together, for more than
    one channel; oracle metrics with a reference; PESQ if its package is installed.
    """
    return [
        name
        for name, entry in TABLE.items()
        if sample_rate >= entry.minimum_rate
        and (has_reference or not entry.needs_reference)
        and (channels > 1 or not entry.together)
        and (entry.package is None or find_spec(entry.package) is not None)
    ]


def unknown_metric(name: str, known: Sequence[str]) -> str:
    """Return the message about a name that no metric has."""
    near = ", ".join(map(repr, nearest(name, known, count=3)))
    return f"name={name!r} is no known metric: use one of {near}"
