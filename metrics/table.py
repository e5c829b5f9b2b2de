"""The table of metrics: a row for each, with the audio that it takes and what a difference in it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any

from torch import Tensor

from encore.common.dsp import resample
from encore.common.names import nearest
from encore.common.packages import require
from encore.metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from encore.metrics.external import is_external, open_metric
from encore.metrics.music import csdr, usdr
from encore.metrics.networks import NETWORKS, network_scores, open_network
from encore.metrics.quality import Metric
from encore.metrics.reference import STOI_MINIMUM_RATE, estoi, pesq, sdr, si_sdr, snr, stoi
from encore.metrics.self_consistency import disjointness, fixed_point, remix_agreement


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of the table.

    Attributes:
        function: Of estimates ``(n, c, t)`` and the signals of ``needs``: ``(n,)``, or ``(n, c)``, of which
            the mean is taken. It may take ``sample_rate``, ``workers`` and ``names`` by name; with ``names``
            one call computes several metrics, a dictionary of these.
        needs: See `Metric`.
        scale: A difference that counts as one unit where metrics are joined.
        rate: Rate in Hz that audio is resampled to; None where audio is scored at its own rate.
        minimum_rate: Lowest rate in Hz of the audio, if there is one without ``rate``.
        differentiable: Whether derivatives go through it.
        together: Whether it takes the channels of an item together.
        fix: What to do with audio of a lower rate.
        packages: Optional packages that it needs.
        load: Loads its weights, so that missing ones and packages fail early; None if it has none to fetch.
    """

    function: Callable[..., Any]
    _: KW_ONLY
    needs: tuple[str, ...] = ("references",)
    scale: float = 1.0
    rate: int | None = None
    minimum_rate: int = 1
    differentiable: bool = False
    together: bool = False
    fix: str = "leave it out, or use audio of a higher rate"
    packages: tuple[str, ...] = ()
    load: Callable[[str], object] | None = None

    @property
    def lowest_rate(self) -> int:
        """Lowest rate in Hz of audio that it scores."""
        return self.rate or self.minimum_rate

    @property
    def options(self) -> set[str]:
        """Arguments that the function takes by name."""
        return {"sample_rate", "workers", "names"} & signature(self.function).parameters.keys()


def _network(family: str) -> dict[str, Row]:
    network, function = NETWORKS[family], partial(network_scores, family)
    return {
        name: Row(function, needs=(), scale=scale, rate=network.rate, load=open_network)
        for name, scale in network.scales.items()
    }


_WIDE_BAND = "use 'pesq_nb', or audio of a higher rate"

TABLE: dict[str, Row] = {
    "si_sdr": Row(si_sdr, differentiable=True),
    "sdr": Row(sdr, differentiable=True),
    "snr": Row(snr, differentiable=True),
    "usdr": Row(usdr, differentiable=True, together=True),
    "csdr": Row(csdr, together=True),
    "pesq": Row(partial(pesq, mode="wb"), scale=0.1, rate=16000, packages=("pesq",), fix=_WIDE_BAND),
    "pesq_nb": Row(partial(pesq, mode="nb"), scale=0.1, rate=8000, packages=("pesq",)),
    "stoi": Row(stoi, scale=0.01, minimum_rate=STOI_MINIMUM_RATE),
    "estoi": Row(estoi, scale=0.01, minimum_rate=STOI_MINIMUM_RATE),
    **dict.fromkeys(DNSMOS_NAMES, Row(dnsmos, needs=(), scale=0.1, rate=DNSMOS_RATE, differentiable=True)),
    "disjointness": Row(disjointness, needs=("mixture",), scale=0.01, differentiable=True),
    "fixed_point": Row(fixed_point, needs=("separate",)),
    "remix_agreement": Row(remix_agreement, needs=("mixture", "separate")),
    **{name: row for family in NETWORKS for name, row in _network(family).items()},
}
"""Every metric by its name; higher is better in all of them."""

SELF_CONSISTENCY_METRICS = tuple(n for n, row in TABLE.items() if {"mixture", "separate"} & {*row.needs})
"""Metrics that compare with the mixture or call the separator, and so are guides only."""

EXTERNAL_METRICS = tuple(name for name, row in TABLE.items() if row.load is not None)
"""Published networks, whose weights are fetched."""

METRIC_NAMES = tuple(name for name in TABLE if name not in (*SELF_CONSISTENCY_METRICS, *EXTERNAL_METRICS))
"""The others, which need no network: audio is scored with them by default."""

ALIASES = {"pesq_wb": "pesq"}


def get_metric(name: str, *, sample_rate: int, workers: int = 0) -> Metric:
    """Return a metric by its name.

    Args:
        name: One of `TABLE`, ``"pesq_wb"`` for ``"pesq"``, or a file or function of your own, such as
            ``"onnx:mos.onnx?sample_rate=16000"``; see `encore.metrics.external.open_metric`.
        sample_rate: Rate in Hz of the audio that it scores; a higher one than the metric's own is resampled.
        workers: Processes that PESQ and STOI spread a batch over, with the same values; 0 scores in this
            process. All metrics share them, see `encore.metrics.processes`.

    Raises:
        FileNotFoundError: If the metric's file does not exist.
        ValueError: If the name is unknown, the rate is below the metric's own, workers is negative, or a
            package is not installed or weights are missing and cannot be fetched.

    Example:
        >>> metric = get_metric("si_sdr", sample_rate=16000)
        >>> metric.name, metric.kind, metric.scale
        ('si_sdr', 'oracle', 1.0)
    """
    own = ALIASES.get(name, name)
    if own not in TABLE:
        if is_external(name):
            return open_metric(name, sample_rate=sample_rate)
        near = ", ".join(map(repr, nearest(name, TABLE, count=3)))
        raise ValueError(f"name={name!r} is no known metric: use one of {near}")
    row = TABLE[own]
    if sample_rate < row.lowest_rate:
        needed = f"the {row.lowest_rate} Hz that {name!r} needs"
        raise ValueError(f"sample_rate={sample_rate} is below {needed}: {row.fix}")
    if workers < 0:
        raise ValueError(f"workers={workers} is negative: give 0 to score in this process")
    for package in row.packages:
        require(package, needed_by=f"metric {name!r}", extra="metrics")
    if row.load is not None:
        row.load(name)
    return Metric(
        name=own,
        function=partial(_score_one, own, sample_rate, workers),
        sample_rate=sample_rate,
        needs=row.needs,
        minimum_rate=row.lowest_rate,
        differentiable=row.differentiable,
        scale=row.scale,
    )


def score_rows(
    names: Sequence[str], sample_rate: int, workers: int, estimates: Tensor, *signals: Any
) -> dict[str, Tensor]:
    """Score with rows that one call of their function computes.

    Args:
        names: Of rows with one function, which takes ``names`` if they are several.
        sample_rate: Rate in Hz of the audio.
        workers: See `get_metric`.
        estimates: ``(n, c, t)``.
        *signals: Those that the rows need.

    Returns:
        For each name ``(n,)``, the mean over channels unless they are taken together.
    """
    row, given = TABLE[names[0]], (estimates, *signals)
    rate = row.rate or sample_rate
    if rate != sample_rate:
        given = tuple(resample(signal, sample_rate, rate, kernel="hann") for signal in given)
    options = {"sample_rate": rate, "workers": workers, "names": names}
    found = row.function(*given, **{name: options[name] for name in row.options})
    scores = found if "names" in row.options else {names[0]: found}
    return {name: values if values.ndim == 1 else values.mean(-1) for name, values in scores.items()}


def _score_one(name: str, sample_rate: int, workers: int, *signals: Any) -> Tensor:
    return score_rows((name,), sample_rate, workers, *signals)[name]


def default_metrics(sample_rate: int, channels: int = 1, *, has_reference: bool = True) -> list[str]:
    """Return the names of the metrics that audio is scored with by default.

    All of `METRIC_NAMES` that can score audio of this rate in Hz; those of music, which take channels
    together, for more than one channel; oracle metrics with a reference; PESQ if its package is installed.
    """
    return [
        name
        for name in METRIC_NAMES
        if sample_rate >= (row := TABLE[name]).lowest_rate
        and (has_reference or not row.needs)
        and (channels > 1 or not row.together)
        and all(find_spec(package) is not None for package in row.packages)
    ]
