"""How a mixture becomes estimates: what a node of ``configs/method`` builds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from encore.cli.guides import cached_guide
from encore.cli.most_shares import most_shares
from encore.cli.overrides import UserError
from encore.cli.prior_method import PosteriorSettings
from encore.inference import (
    BatchSize,
    BridgeSampler,
    Capped,
    Lanes,
    Refinement,
    Search,
    Wiener,
    overlap_add,
    refine,
)
from encore.inference.chunking import Read, cuts, shifted
from encore.inference.consistency import Consistency
from encore.inference.execution import usual_lanes
from encore.inference.segments import Stretch, refined_stretches
from encore.metrics import Quality
from encore.models.levels import Level
from encore.models.types import Groups, Separator

BATCH_SECONDS = 60.0
"""Seconds of audio, all channels together, that a separator call may hold if ``max_batch`` is not set.

The calls of segments that are worked on at the same time may hold as much together, and a blend each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to refine; see `encore.inference.refine`.

    Args:
        steps: Steps after the one-step estimate; 0 for that alone.
        search: Proposes mixture shares.
        guide: What chooses among them: a measure's name, a file of ``configs/quality`` by its name or path,
            or a node with ``_target_``; None for schedules.
        calls: Most separator calls of one item (for a long file, of one segment); None for no cap.
        keep_previous: Let the previous estimate compete.
        blend: ``"endpoint"`` or ``"state"``.
        max_batch: Blends in one separator call; None for what is fastest by timing, but no more than hold
            `BATCH_SECONDS`. A number makes two runs on one machine equal to the last bit.
        lanes: Parts of a step, or segments of a long file, that are worked on at the same time; None for one
            a processor core, and 1 on a GPU.
        segment_seconds: A file that is longer is cut into segments of that length, in memory that hardly
            grows with the file; None takes every file as a whole, and for diffusion priors means as long as
            they were trained on.
        overlap_seconds: How long one segment is faded into the next; None for half of it.
        context_seconds: How much at either side of a fade is heard only, for separators that are wrong near
            the ends of what they get.
        refine_per: ``"segment"`` refines each segment by itself, with ratios of its own; ``"item"`` separates
            in segments and refines the joined estimates of the whole file, with one ratio a step, in memory
            that grows with the file.
        shifts: With n from 1 up, every estimate is the mean over n delays of up to half a second, for n times
            the calls.
        consistency: Move all estimates to where they sum to the mixture, ``"uniform"`` or ``"energy"``; for
            separators that estimate all of it.
        wiener: A Wiener filter after each extraction, ``"single"`` for each channel alone or ``"multi"`` for
            all together; None for none.
        noise: White noise in every blend, in units of the mixture's level; see `encore.inference.refine`.
        level: ``"mixture"`` lets a separator that standardises its input go by the original mixture's mean
            and deviation in every step, ``"own"`` by those of each blend.
        sampler: Samples a bridge instead of refining, in so many steps; the options of refinement then have
            no meaning, but for ``segment_seconds`` and the like.
        posterior: Samples the sources from diffusion priors, of which the separator is then made; it is
            asked once.
        recipe: The configuration that it was built of, for a run's record.
    """

    steps: int
    search: Search
    guide: Any = None
    calls: int | None = None
    keep_previous: bool = True
    blend: Literal["endpoint", "state"] = "endpoint"
    max_batch: int | None = None
    lanes: int | None = None
    segment_seconds: float | None = 30.0
    overlap_seconds: float | None = 1.0
    context_seconds: float = 0.0
    refine_per: Literal["segment", "item"] = "segment"
    shifts: int = 0
    consistency: Consistency | None = None
    wiener: Literal["single", "multi"] | None = None
    noise: float = 0.0
    level: Level = "mixture"
    sampler: BridgeSampler | None = None
    posterior: PosteriorSettings | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _batch_sizes: dict[tuple[int, int], BatchSize] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 0:
            raise UserError(f"steps={self.steps}: give a whole number from 0 up")
        if self.guide is None and self.search.selects and self.steps and self.sampler is None:
            raise UserError("guide=null: a search needs a guide; give --guide, or use --method progressive")
        if self.blend not in ("endpoint", "state"):
            raise UserError(f"blend={self.blend}: choose endpoint or state")
        if self.calls is not None:
            Capped(self.search, self.calls)  # says what is wrong
        if self.max_batch is not None and self.max_batch < 1:
            raise UserError(f"max_batch={self.max_batch}: must be at least 1, or null")
        if self.lanes is not None and self.lanes < 1:
            raise UserError(f"lanes={self.lanes}: must be at least 1, or null")
        if self.refine_per not in ("segment", "item"):
            raise UserError(f"refine_per={self.refine_per}: choose segment or item")
        if self.shifts < 0:
            raise UserError(f"shifts={self.shifts}: give 0 or more")
        if self.consistency not in (None, "uniform", "energy"):
            raise UserError(f"consistency={self.consistency}: choose uniform or energy, or null")
        if self.wiener not in (None, "single", "multi"):
            raise UserError(f"wiener={self.wiener}: choose single or multi, or null")
        if self.noise < 0 or (self.noise and self.blend == "state"):
            raise UserError(f"noise={self.noise}: give 0 or more, and 0 for blend=state")
        if self.level not in get_args(Level):
            raise UserError(f"level={self.level}: choose {' or '.join(get_args(Level))}")
        if self.sampler is not None:
            self._check_sampler(self.sampler)
        length, overlap, context = self.segment_seconds, self._overlap, self.context_seconds
        if length is not None and not length > 0:
            raise UserError(f"segment_seconds={length}: must be above 0, or null for whole files")
        if overlap < 0 or context < 0 or not overlap + 2 * context < (math.inf if length is None else length):
            raise UserError(
                f"overlap_seconds={overlap}: must be from 0 up and, with twice context_seconds={context},"
                f" below segment_seconds={length}; give a longer --segment, or --set "
                "method.overlap_seconds=null for half of it"
            )

    def _check_sampler(self, sampler: BridgeSampler) -> None:
        if sampler.steps != self.steps or self.steps < 1:
            raise UserError(f"steps={self.steps}: a sampler needs 1 or more")
        if self.refine_per == "item" or self.shifts or self.consistency is not None or self.level != "own":
            raise UserError(
                f"refine_per={self.refine_per}, shifts={self.shifts}, consistency={self.consistency}, "
                f"level={self.level}: a bridge is sampled by segment, at its own level, without the others"
            )

    @property
    def total_steps(self) -> int:
        """Steps that will really be made: a schedule brings its own."""
        if self.sampler is not None:
            return self.sampler.evaluations
        return self.steps if self.search.steps is None else self.search.steps

    @property
    def guided(self) -> bool:
        """Whether a measure chooses."""
        return self.sampler is None and self.search.selects and self.total_steps > 0

    def quality(self, sample_rate: int) -> Quality | None:
        """The guide for audio of a rate in Hz; None for a method without.

        Raises:
            UserError: If there is no such guide, or it has no such rate.
        """
        return cached_guide(self.guide, sample_rate) if self.guided else None

    def most_calls(self, sources: int, asked: int = 0) -> int:
        """Separator calls of one item if no step ends early; share 1 is free after the first.

        A bridge with several sources of its own takes fewer: all of them in a call.


        Args:
            sources: That are refined.
            asked: Calls that one score of the guide takes.
        """
        shares = (
            most_shares(self.search, self.steps) if self.sampler is None else self.sampler.evaluations - 1
        )
        most = 1 + sources * (shares + asked * (shares + 1))
        return most if self.calls is None else min(most, self.calls)

    def most_scores(self, sources: int) -> int:
        """Times that the guide scores one item that costs the most calls."""
        return self.most_calls(sources) - 1 + sources if self.guided else 0

    def segments(self, frames: int, sample_rate: int) -> int:
        """Segments that a file of that many samples, of a rate in Hz, is refined in.

        Raises:
            ValueError: If nothing of a segment is left between its fades in whole samples.
        """
        count = len(cuts(frames, **self._cutting(frames, sample_rate)))
        return 1 if self.refine_per == "item" else count

    @property
    def _overlap(self) -> float:
        """Seconds of a fade."""
        return (self.segment_seconds or 0.0) / 2 if self.overlap_seconds is None else self.overlap_seconds

    def _cutting(self, frames: int, sample_rate: int) -> dict[str, int]:
        """Samples of a segment, a fade and the context at either side of it."""
        if self.segment_seconds is None:
            return {"segment": frames, "overlap": 0, "context": 0}
        seconds = {
            "segment": self.segment_seconds,
            "overlap": self._overlap,
            "context": self.context_seconds,
        }
        return {name: round(length * sample_rate) for name, length in seconds.items()}

    def stretches(
        self,
        separate: Separator,
        read: Read,
        frames: int,
        *,
        sample_rate: int,
        interchangeable: Groups = (),
        standardise: bool = False,
        read_reference: Read | None,
        keep_trajectory: bool,
        generator: Generator,
        device: torch.device,
        lanes: Lanes,
    ) -> Iterator[Stretch]:
        """Refine all sources of one item of any length; see `encore.inference.segments.refined_stretches`.

        Args:
            separate: Maps ``(b, c, t)`` to ``(b, s, c, t)``.
            read: Gives samples of the mixture, ``(1, c, t)`` in the main memory.
            frames: Its samples.
            sample_rate: Their rate in Hz.
            interchangeable: Places of the sources that the separator gives in any order, group by group.
            standardise: Whether ``separate`` leaves it to its caller to standardise what it gets.
            read_reference: Gives ``(1, s, c, t)``; None without.
            keep_trajectory: Keep the estimates of all steps.
            generator: For searches that draw, and for shifts.
            device: Where the separator lives, to which the segments are brought.
            lanes: Where the segments are worked on.

        Returns:
            The stretches in order: one for an item that is refined as a whole.
        """
        cutting = self._cutting(frames, sample_rate)
        if self.shifts:
            most = sample_rate // 2
            separate = shifted(
                separate, shifts=self.shifts, most=most, stitched=interchangeable, generator=generator
            )
        # an item that is refined as a whole stays in the main memory, and its segments are brought one by one
        home = device
        if self.refine_per == "item" and frames > cutting["segment"]:
            separate = self._of_any_length(separate, cutting, interchangeable, device)
            home, cutting = torch.device("cpu"), {"segment": frames, "overlap": 0, "context": 0}

        def refine_one(
            mixture: Tensor, /, *, reference: Tensor | None, generator: Generator | None
        ) -> Refinement:
            return self.run(
                separate,
                _bring(mixture, home),
                sample_rate=sample_rate,
                interchangeable=interchangeable,
                standardise=standardise,
                reference=None if reference is None else _bring(reference, home),
                keep_trajectory=keep_trajectory,
                generator=generator,
                at_once=lanes.count,
            )

        return refined_stretches(
            refine_one,
            read,
            frames,
            stitched=interchangeable,
            read_reference=read_reference,
            generator=generator,
            lanes=lanes,
            **cutting,
        )

    def _of_any_length(
        self, separate: Separator, cutting: Mapping[str, int], interchangeable: Groups, device: torch.device
    ) -> Separator:
        """A separator of whole items, made of one of segments."""
        # on a CPU large calls are no faster
        at_once = 1 if device.type == "cpu" else max(1, int(BATCH_SECONDS / (self.segment_seconds or 1)))
        return overlap_add(
            separate,
            segment=cutting["segment"],
            overlap=cutting["overlap"] / cutting["segment"],
            context=cutting["context"],
            max_batch=at_once,
            stitched=interchangeable,
            device=device,
        )

    def run(
        self,
        separate: Separator,
        mixture: Tensor,
        *,
        sample_rate: int,
        interchangeable: Groups = (),
        standardise: bool = False,
        reference: Tensor | None,
        keep_trajectory: bool,
        generator: Generator | None,
        at_once: int = 1,
    ) -> Refinement:
        """Refine all sources of one item as a whole.

        Args:
            separate: Maps ``(b, c, t)`` to ``(b, s, c, t)``.
            mixture: ``(1, c, t)``.
            sample_rate: Its rate in Hz.
            interchangeable: Places of the sources that the separator gives in any order, group by group;
                where there is a reference, they are put into its order.
            standardise: Whether ``separate`` leaves it to its caller to standardise what it gets.
            reference: ``(1, s, c, t)``, or None.
            keep_trajectory: Keep the estimates of all steps.
            generator: For searches that draw, and for noise.
            at_once: How many items are refined at the same time, which share the cores and the memory.

        Returns:
            The refinement with its source axis.
        """
        if self.sampler is not None:
            return self.sampler(
                separate,
                mixture,
                source="all",
                interchangeable=interchangeable,
                reference=reference if interchangeable else None,
                generator=generator,
            )
        quality = self.quality(sample_rate)
        needed = bool(interchangeable) or (quality is not None and quality.needs_reference)
        most = max(1, round(BATCH_SECONDS * sample_rate / at_once))
        learnt = self._batch_sizes.setdefault((sample_rate, at_once), BatchSize(samples=most))
        return refine(
            separate,
            mixture,
            source="all",
            steps=self.steps,
            search=self.search if self.calls is None else Capped(self.search, self.calls),
            quality=quality,
            reference=reference if needed else None,
            keep_previous=self.keep_previous,
            blend=self.blend,
            interchangeable=interchangeable,
            consistency=self.consistency,
            post_filter=None
            if self.wiener is None
            else Wiener.at_rate(sample_rate, multichannel=self.wiener == "multi"),
            noise=self.noise,
            standardise=standardise,
            max_batch=self.max_batch or learnt,
            lanes=1 if at_once > 1 else self.lanes or usual_lanes(mixture.device),
            keep_trajectory=keep_trajectory,
            generator=generator,
        )

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record."""
        return {
            "steps": self.total_steps,
            "search": {"name": type(self.search).__name__, **vars(self.search)},
            "guide": self.guide if self.guided else None,
            "calls": self.calls,
            "keep_previous": self.keep_previous,
            "blend": self.blend,
            "segment_seconds": self.segment_seconds,
            "overlap_seconds": self._overlap,
            "context_seconds": self.context_seconds,
            "refine_per": self.refine_per,
            "shifts": self.shifts,
            "consistency": self.consistency,
            "wiener": self.wiener,
            "noise": self.noise,
            "level": self.level,
            "sampler": None if self.sampler is None else self.sampler.name,
            "posterior": self.recipe.get("posterior"),
        }


def _bring(waveform: Tensor, device: torch.device) -> Tensor:
    """A segment on the separator's device; to a GPU while it still works on the one before."""
    return (
        waveform.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else waveform.to(device)
    )
