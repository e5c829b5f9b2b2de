"""How a file's mixture becomes estimates: what a node of ``configs/method`` builds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from encore.cli.overrides import UserError
from encore.inference import (
    BridgeSampler,
    GridSearch,
    Refined,
    RefineOptions,
    Search,
    Trajectory,
    overlap_add,
)
from encore.inference.chunking import segment_bounds
from encore.inference.options import BATCH_SECONDS
from encore.inference.prior_separation import PriorSeparator
from encore.inference.segments import Chunk
from encore.metrics.quality import Metric
from encore.models.types import LoadedSeparator, permutation_groups


@dataclass(frozen=True, kw_only=True)
class Method(RefineOptions):
    """The options of a refinement, and how long files are cut.

    Args:
        segment_seconds: A longer file is cut into segments of that length, in memory that hardly grows with
            the file; None takes every file as a whole, and for diffusion priors the length that they were
            trained on.
        overlap_seconds: How long one segment is faded into the next; None for half of it.
        context_seconds: Audio at either side of a fade that is used as context only, for separators that are
            wrong near the ends of their input.
        refine_per: ``"segment"`` refines each segment by itself, with ratios of its own; ``"item"`` separates
            in segments and refines the joined estimates of the whole file, with one ratio a step, in memory
            that grows with the file.
        sampler: Samples a bridge instead of refining.
        posterior: Makes the separator of diffusion priors: `encore.cli.prior_method.prior_separator` with
            the options of sampling.
        recipe: The configuration that it was built of, for a run's record.

    Raises:
        UserError: If a value is out of range, or values do not fit each other.
    """

    search: Search | Tensor = field(default_factory=lambda: GridSearch(1, steps=0))
    segment_seconds: float | None = 30.0
    overlap_seconds: float | None = 1.0
    context_seconds: float = 0.0
    refine_per: Literal["segment", "item"] = "segment"
    sampler: BridgeSampler | None = None
    posterior: Callable[..., PriorSeparator] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine_per not in ("segment", "item"):
            raise UserError(f"refine_per={self.refine_per}: choose segment or item")
        if self.sampler is not None and (self.refine_per == "item" or not self.plain):
            raise UserError(
                f"refine_per={self.refine_per}, shifts={self.shifts}, consistency={self.consistency}, "
                f"wiener={self.wiener}: a bridge is sampled by segment, without the others"
            )
        length, overlap, context = self.segment_seconds, self._overlap, self.context_seconds
        if length is not None and not length > 0:
            raise UserError(f"segment_seconds={length}: must be above 0, or null for whole files")
        if overlap < 0 or context < 0 or not overlap + 2 * context < (math.inf if length is None else length):
            raise UserError(
                f"overlap_seconds={overlap}: must be from 0 up and, with twice context_seconds={context},"
                f" below segment_seconds={length}; give a longer --segment, or --set "
                "method.overlap_seconds=null for half of it"
            )

    @property
    def steps(self) -> int:
        """Steps after the one-step estimate, at most."""
        return super().steps if self.sampler is None else self.sampler.steps

    @property
    def needs_guide(self) -> bool:
        """Whether a guide must choose."""
        return self.sampler is None and super().needs_guide

    def max_calls(self, sources: int, metric: Metric | None = None) -> int:
        """Return the most separator calls of one item of that many sources.

        A bridge with several sources of its own takes fewer: all of them in a call.
        """
        if self.sampler is None:
            return super().max_calls(sources, metric)
        return 1 + sources * (self.sampler.evaluations - 1)

    def segments(self, frames: int, sample_rate: int) -> int:
        """Return the number of segments that a file of that many samples is refined in."""
        return len(segment_bounds(frames, **self.bounds(frames, sample_rate)))

    def bounds(self, frames: int, sample_rate: int) -> dict[str, int]:
        """Return the samples of a segment, of a fade and of the context at either side of it.

        Raises:
            ValueError: If nothing of a segment is left between its fades in whole samples.
        """
        bounds = self._cuts(frames, sample_rate)
        segment_bounds(frames, **bounds)  # says what is wrong
        whole = {"segment": frames, "overlap": 0, "context": 0}
        return whole if self.refine_per == "item" else bounds

    def refine(
        self,
        separator: LoadedSeparator,
        mixture: Tensor,
        *,
        references: Tensor | None,
        generator: Generator | None,
        keep_steps: bool,
        device: torch.device,
        at_once: int,
    ) -> Chunk:
        """Refine all sources of one segment, or of a whole item.

        Args:
            separator: On ``device``.
            mixture: ``(1, c, t)`` in main memory, at the separator's rate.
            references: ``(1, s, c, t)``; None without.
            generator: Of shifts and of a bridge's noise.
            keep_steps: Keep the estimates of all steps.
            device: The separator's device, to which the signals are moved.
            at_once: Refinements that run at the same time.
        """
        steps = Trajectory() if keep_steps else None
        options: dict[str, Any] = {"generator": generator, "callback": steps, "at_once": at_once}
        cuts = self._cuts(mixture.shape[-1], separator.sample_rate)
        if mixture.shape[-1] > cuts["segment"]:
            # the item stays in main memory, and its segments are moved one by one
            home = torch.device("cpu")
            own: dict[str, Any] = cuts | {"overlap": cuts["overlap"] / cuts["segment"]}
            # on a CPU large calls are no faster
            calls = 1 if device.type == "cpu" else int(BATCH_SECONDS / (self.segment_seconds or 1))
            groups = permutation_groups(separator.sources)
            options["wrap"] = partial(
                overlap_add, **own, max_batch=max(1, calls), groups=groups, device=device
            )
        else:
            home = device
        moved = None if references is None else _moved(references, home)
        refine = super().__call__ if self.sampler is None else self.sampler
        started = time.monotonic()
        refined = refine(separator, _moved(mixture, home), references=moved, **options)
        chunk = Chunk.of(refined, mixture, references, None if steps is None else steps.estimates)
        return replace(chunk, seconds=time.monotonic() - started)

    def silence(self, mixture: Tensor, references: Tensor | None, sources: int, *, keep_steps: bool) -> Chunk:
        """Return silence as the estimates of a silent segment ``(1, c, t)``, without a call or a score."""
        unknown = torch.full((self.steps + 1, 1), torch.nan)
        zeros = torch.zeros(1, sources, *mixture.shape[1:])
        none = torch.zeros(1, dtype=torch.long)
        refined = Refined(zeros, zeros, scores=unknown, ratios=unknown[1:], evaluations=none)
        return Chunk.of(refined, mixture, references, [zeros] * self.steps if keep_steps else None)

    def describe(self) -> dict[str, Any]:
        """Return every setting as plain values, for a run's record."""
        facts = {name: value for name, value in self.recipe.items() if name != "_target_"}
        if isinstance(self.search, Tensor):
            return facts | {"search": self.search.tolist()}
        return facts | {"search": {"name": type(self.search).__name__, **asdict(self.search)}}

    @property
    def _overlap(self) -> float:
        """Seconds of a fade."""
        return (self.segment_seconds or 0.0) / 2 if self.overlap_seconds is None else self.overlap_seconds

    def _cuts(self, frames: int, sample_rate: int) -> dict[str, int]:
        if self.segment_seconds is None:
            return {"segment": frames, "overlap": 0, "context": 0}
        seconds = {"segment": self.segment_seconds, "overlap": self._overlap, "context": self.context_seconds}
        return {name: round(length * sample_rate) for name, length in seconds.items()}


def _moved(waveform: Tensor, device: torch.device) -> Tensor:
    """Return a segment on the separator's device; to a GPU while it still works on the one before."""
    return (
        waveform.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else waveform.to(device)
    )
