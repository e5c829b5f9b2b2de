"""Declare and validate the options of a refinement: for `infer.py`, the callback and the experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from torch import Generator, Tensor

from encore.inference.bridges import with_ratio
from encore.inference.chunking import shift_average
from encore.inference.consistency import Consistency
from encore.inference.execution import BatchSize, batched, default_workers
from encore.inference.fast import refine
from encore.inference.limits import MaxEvaluations
from encore.inference.local_search import GreedySearch
from encore.inference.paths import NoisyPath, Path, endpoint, state
from encore.inference.quality import cost_of
from encore.inference.refinement import Refined, Step, check_schedule, refine_fixed
from encore.inference.search import Search
from encore.inference.wiener import Wiener
from encore.inference.wrappers import aligned, at_level_of, mixture_consistent, wiener_filtered
from encore.metrics.quality import Metric
from encore.metrics.table import get_metric
from encore.models.levels import Level, without_normalization
from encore.models.types import Groups, LoadedSeparator, Separator, permutation_groups
from encore.models.wrappers import match_channels

BATCH_SECONDS = 60.0
"""Seconds of audio, all channels together, that a separator call may hold if ``max_batch`` is None.

The calls of refinements that run at the same time may hold as much together, and one input each."""

_ANY_RATE = 48_000  # every metric scores audio of this rate

_named_metric = lru_cache(maxsize=16)(get_metric)  # some hold a network


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """How to refine a separator's estimates.

    Args:
        search: Proposes mixing ratios; or a schedule ``(steps,)`` of them, which needs no guide.
        guide: The quality that steers the search: a metric, or the name of one.
        max_evaluations: Most separator calls of one item, or what the first estimate and its score cost if
            that is more; None for no limit, and for a schedule.
        path: ``"endpoint"`` mixes the estimate with the mixture, ``"state"`` with the last input.
        noise: White noise in every input, see `encore.inference.paths.NoisyPath`; endpoint path only.
        level: ``"mixture"`` normalizes the input of a separator that wants it normalized by the mean and
            deviation of the original mixture in every step, ``"own"`` by those of each input.
        shifts: Average every estimate over this many delays of up to half a second, for as many calls; 0
            for none.
        wiener: A Wiener filter after each separation, ``"single"`` for each channel by itself or ``"multi"``
            for all together; None for none.
        consistency: Move all estimates to where they sum to the mixture, ``"uniform"`` or ``"energy"``; for
            separators that estimate all of it.
        with_ratio: Condition a bridge's data predictor on the mixing ratio, which is its time.
        max_batch: Inputs in one separator call; None for the fastest number by timing, within
            `BATCH_SECONDS`. A number makes two runs on one machine equal to the last bit.
        workers: Parts of a step that are worked on at the same time; None for one per processor core, and 1
            on a GPU or where several refinements run at the same time.

    Raises:
        ValueError: If a value is out of range, or values do not fit each other.
    """

    search: Search | Tensor = field(default_factory=GreedySearch)
    guide: Metric | str | None = None
    max_evaluations: int | None = None
    path: Literal["endpoint", "state"] = "endpoint"
    noise: float = 0.0
    level: Level = "mixture"
    shifts: int = 0
    wiener: Literal["single", "multi"] | None = None
    consistency: Consistency | None = None
    with_ratio: bool = False
    max_batch: int | None = None
    workers: int | None = None
    _sizes: dict[tuple[int, int], BatchSize] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        choices: Mapping[str, tuple[Any, ...]] = {
            "path": ("endpoint", "state"),
            "level": get_args(Level),
            "wiener": ("single", "multi", None),
            "consistency": ("uniform", "energy", None),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                allowed = " or ".join("null" if choice is None else choice for choice in known)
                raise ValueError(f"{name}={value}: choose {allowed}")
        for name in ("max_evaluations", "max_batch", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1, or null")
        if self.shifts < 0:
            raise ValueError(f"shifts={self.shifts}: give 0 or more")
        if self.noise < 0 or (self.noise and self.path == "state"):
            raise ValueError(f"noise={self.noise}: give 0 or more, and 0 for path=state")
        if self.with_ratio and (self.path == "state" or self.shifts or self.wiener or self.consistency):
            raise ValueError(
                "with_ratio=true: is for the endpoint path, without shifts, wiener and consistency"
            )
        if isinstance(self.search, Tensor):
            check_schedule(self.search)
            if self.guide is not None:
                raise ValueError(f"guide={self.guide}: a schedule has none; leave it out")
            if self.max_evaluations is not None:
                raise ValueError(
                    f"max_evaluations={self.max_evaluations}: a schedule makes a call per source and step; "
                    "leave it out, or shorten the schedule"
                )
        elif self.guide is None and self.needs_guide:
            raise ValueError(f"guide=null: {type(self.search).__name__} needs a guide, such as dnsmos_ovrl")

    @property
    def guide_name(self) -> str:
        """The name of the guide, or ``"none"`` for a schedule."""
        return str("none" if self.guide is None else getattr(self.guide, "name", self.guide))

    @property
    def steps(self) -> int:
        """Steps after the one-step estimate, at most."""
        return len(self.search) if isinstance(self.search, Tensor) else self.search.steps

    @property
    def needs_guide(self) -> bool:
        """Whether a guide must choose."""
        return not isinstance(self.search, Tensor) and self.search.steps > 0

    @property
    def guided(self) -> bool:
        """Whether a guide chooses."""
        return self.guide is not None and self.needs_guide

    @property
    def plain(self) -> bool:
        """Whether its first estimate is the separator's own."""
        return not (self.consistency or self.wiener or self.shifts)

    def metric(self, sample_rate: int) -> Metric | None:
        """Return the metric that steers, for audio of a rate in Hz; None for a schedule or no step.

        Raises:
            ValueError: If there is none of that name, or it has no such rate.
        """
        if not self.guided:
            return None
        if isinstance(self.guide, str):
            return _named_metric(self.guide, sample_rate=sample_rate)
        return self.guide

    def max_calls(self, sources: int, metric: Metric | None = None) -> int:
        """Return the most separator calls of one item of that many sources."""
        if isinstance(self.search, Tensor):
            return self._calls_each * (1 + sources * int((self.search < 1).sum()))
        cost = cost_of(metric, self.search, sources)
        most = cost.start + cost.candidate * self.search.max_candidates()
        if self.max_evaluations is not None:
            most = max(cost.start, min(most, self.max_evaluations // self._calls_each))
        return most * self._calls_each

    @property
    def _calls_each(self) -> int:
        """Separator calls for one estimate."""
        return max(1, self.shifts)

    @property
    def kind(self) -> str:
        """``"oracle"``, ``"blind"``, or ``"fixed"`` for a schedule."""
        metric = self.metric(_ANY_RATE)
        return "fixed" if metric is None else metric.kind

    def __call__(
        self,
        separator: LoadedSeparator,
        mixture: Tensor,
        *,
        references: Tensor | None = None,
        generator: Generator | None = None,
        callback: Callable[[Step], None] | None = None,
        at_once: int = 1,
        wrap: Callable[[Separator], Separator] | None = None,
    ) -> Refined:
        """Refine all sources of a separator.

        Args:
            separator: On the mixture's device, or on another if ``wrap`` moves the samples.
            mixture: ``(b, c, t)`` of its sampling rate.
            references: ``(b, s, c, t)``; needed by oracles, and used to order interchangeable sources.
            generator: Draws the delays of ``shifts``.
            callback: Called after every step.
            at_once: Refinements that run at the same time and share cores and memory.
            wrap: Applied to the separator before what depends on the items, such as `overlap_add`.
        """
        metric, groups = self.metric(separator.sample_rate), permutation_groups(separator.sources)
        if metric is not None and metric.sample_rate != separator.sample_rate:
            raise ValueError(
                f"guide={metric.name}: scores audio of {metric.sample_rate} Hz, the separator's has "
                f"{separator.sample_rate} Hz; give the guide by its name, or build it for that rate"
            )
        separate = self._wrapped(separator, mixture, groups, references, generator, wrap)
        rate = separator.sample_rate
        most = max(1, round(BATCH_SECONDS * rate / at_once))
        size = self.max_batch or self._sizes.setdefault((rate, at_once), BatchSize(samples=most))
        workers = 1 if at_once > 1 else self.workers or default_workers(mixture.device)
        whole = batched(separate, size, workers)
        if isinstance(self.search, Tensor):
            refined = refine_fixed(whole, mixture, self.search, path=self._path, callback=callback)
            return self._counted(refined)
        quality = None
        if metric is not None:
            quality = metric.bind(mixture=mixture, references=references, separate=separate)
        search = self.search
        if self.max_evaluations is not None:
            search = MaxEvaluations(search, max(1, self.max_evaluations // self._calls_each))
        return self._counted(refine(whole, mixture, quality, search, path=self._path, callback=callback))

    def _counted(self, refined: Refined) -> Refined:
        return replace(refined, evaluations=refined.evaluations * self._calls_each)

    @property
    def _path(self) -> Path:
        if self.noise:
            return NoisyPath(self.noise)
        return endpoint if self.path == "endpoint" else state

    def _wrapped(
        self,
        separator: LoadedSeparator,
        mixture: Tensor,
        groups: Groups,
        references: Tensor | None,
        generator: Generator | None,
        wrap: Callable[[Separator], Separator] | None,
    ) -> Separator:
        """Return the separator with all that these options change."""
        if self.with_ratio:
            return with_ratio(separator, mixture)
        bare = without_normalization(separator) if self.level == "mixture" else None
        separate = match_channels(bare or separator, mixture.shape[1])
        rate = separator.sample_rate
        if self.shifts:
            drawn = generator or Generator().manual_seed(0)
            separate = shift_average(
                separate, shifts=self.shifts, max_shift=rate // 2, groups=groups, generator=drawn
            )
        if wrap is not None:
            separate = wrap(separate)
        if bare is not None:
            separate = at_level_of(separate, mixture)
        if groups:
            separate = aligned(separate, mixture, groups, references)
        if self.wiener is not None:
            separate = wiener_filtered(separate, Wiener.at_rate(rate, multichannel=self.wiener == "multi"))
        if self.consistency is not None:
            separate = mixture_consistent(separate, mixture, self.consistency)
        return separate
