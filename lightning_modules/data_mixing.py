"""Data mixing of training batches: the options of `encore.data.mixing` and of the augmentations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from encore.data.augmentation import (
    random_channel_swap,
    random_equaliser,
    random_pitch,
    random_sign_flip,
    random_speed,
    random_tempo,
)
from encore.data.mixing import (
    batch_remix,
    components_of,
    estimate_path,
    linear_path,
    random_gains,
    random_ratios,
    random_snr,
)
from encore.inference.permutation import reference_order, reorder


@dataclass(frozen=True, kw_only=True, slots=True)
class DataMixing:
    """Augment and remix a training batch; everything is off by default.

    Speed, equaliser, pitch, tempo, channels and signs, in this order, change each component; remixing, gains
    and SNR make new mixtures of them. Then every item takes one of three branches: with probability
    ``linear_path`` it moves towards one of its sources by a random mixing ratio, with probability
    ``estimate_path`` it is mixed with the separator's own estimate, otherwise it stays.

    Args:
        speed: Range of random playing speeds of each component; None for off.
        equaliser_db: Largest gain and cut of a random filter on each component; 0 for off.
        pitch_semitones: Range of random pitch changes of each component; None for off.
        tempo: Range of random tempi of each component, at its pitch; None for off.
        channel_swap: Fraction of components in [0, 1] whose channels are reversed.
        sign_flip: Fraction of components in [0, 1] whose sign is inverted.
        remix: Permute every source but the first, and the noise, among the items.
        gain_db: Range of random gains of each component in dB; None for off.
        snr_db: Range of random ratios of references to noise in dB; None for off.
        linear_path: Fraction of items in [0, 1] that move along the linear path.
        estimate_path: Fraction of items in [0, 1] that are mixed with an estimate; one more separator call
            (without gradient) for each of them.
        ratio_beta: Mixing ratios follow Beta(ratio_beta, 1): 1 is uniform.
        unroll: Steps of the multi-step objective: after the first pass this many mixes of mixture and last
            estimate are separated, each at a random ratio, with the loss on every step's output.
        first_weight: Weight in [0, inf) of the first pass's loss in the multi-step objective, where every
            further pass has 1; below 1 the later estimates count more.
        candidates: Ratios drawn for each further pass; each item continues with the one of the smallest loss,
            found without gradient.

    Raises:
        ValueError: If a value is invalid.

    Source: docs/methods.md, data mixing.
    """

    speed: tuple[float, float] | None = None
    equaliser_db: float = 0.0
    pitch_semitones: tuple[float, float] | None = None
    tempo: tuple[float, float] | None = None
    channel_swap: float = 0.0
    sign_flip: float = 0.0
    remix: bool = False
    gain_db: tuple[float, float] | None = None
    snr_db: tuple[float, float] | None = None
    linear_path: float = 0.0
    estimate_path: float = 0.0
    ratio_beta: float = 1.0
    unroll: int = 0
    first_weight: float = 1.0
    candidates: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("linear_path", "estimate_path", "channel_swap", "sign_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a fraction from 0 to 1")
        if self.linear_path + self.estimate_path > 1:
            raise ValueError(
                f"linear_path={self.linear_path} and estimate_path={self.estimate_path}: together at most 1"
            )
        for name, above in (("speed", 0.0), ("tempo", 0.0), ("pitch_semitones", -math.inf)):
            low, high = getattr(self, name) or (1.0, 1.0)
            if not above < low <= high:
                positive = "positive values" if above == 0 else "two values"
                raise ValueError(f"{name}={getattr(self, name)}: give {positive}, the lower one first")
        if self.equaliser_db < 0 or self.ratio_beta <= 0:
            raise ValueError(
                f"equaliser_db={self.equaliser_db}, ratio_beta={self.ratio_beta}: give 0 or more, and a "
                "positive number"
            )
        if self.unroll < 0 or self.candidates < 1:
            raise ValueError(f"unroll={self.unroll}, candidates={self.candidates}: give 0 or more, 1 or more")
        if self.first_weight < 0 or (self.first_weight == 0 and not self.unroll):
            raise ValueError(f"first_weight={self.first_weight}: give 0 or more, above 0 if unroll=0")

    def __call__(
        self,
        mixture: Tensor,
        references: Tensor,
        *,
        separate: Callable[[Tensor], Tensor],
        interchangeable: bool = False,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Augment and remix a batch.

        Args:
            mixture: ``(b, c, t)``.
            references: ``(b, s, c, t)``.
            separate: Gives the estimates for the estimate path; called without gradient, and only if needed.
            interchangeable: Whether estimates come in any order and are permuted to match the references.
            generator: The source of every draw.

        Returns:
            New ``(mixture, references)`` of the same shapes.
        """
        components = components_of(mixture, references)
        for augment, option in (
            (random_speed, self.speed),
            (random_equaliser, self.equaliser_db),
            (random_pitch, self.pitch_semitones),
            (random_tempo, self.tempo),
            (random_channel_swap, self.channel_swap),
            (random_sign_flip, self.sign_flip),
            (_remixed, self.remix),
            (random_gains, self.gain_db),
            (random_snr, self.snr_db),
        ):
            if option:
                components = augment(components, option, generator=generator)  # type: ignore[arg-type]
        count, device = len(mixture), mixture.device
        sources = references.shape[1]
        branch = torch.rand(count, generator=generator, device=generator.device).to(device)
        source = torch.randint(sources, (count,), generator=generator, device=generator.device).to(device)
        ratio = random_ratios(count, self.ratio_beta, generator=generator, device=device)

        linear = branch < self.linear_path
        components = linear_path(components, source, torch.where(linear, ratio, 1.0))
        mixture, references = components.sum(dim=1), components[:, :-1]
        own = (branch >= self.linear_path) & (branch < self.linear_path + self.estimate_path)
        if own.any():
            with torch.no_grad():
                estimates = separate(mixture[own])
                if interchangeable:
                    estimates = reorder(estimates, reference_order(estimates, references[own]))
            mixture, references = mixture.clone(), references.clone()
            mixture[own], references[own] = estimate_path(
                mixture[own], references[own], estimates, source[own], ratio[own]
            )
        return mixture, references


def _remixed(components: Tensor, _on: bool, *, generator: Generator) -> Tensor:
    """Call `batch_remix` as the augmentations are called."""
    return batch_remix(components, generator=generator)
