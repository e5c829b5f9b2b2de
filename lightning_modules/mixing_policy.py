"""Which mixing a training batch gets: the switches of `data.mixing`, drawn and applied in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from encore.data.augmentation import random_equaliser, random_speed
from encore.data.mixing import (
    batch_remix,
    components_of,
    estimate_path,
    linear_path,
    random_gains,
    random_ratios,
    random_snr,
)
from encore.data.music_augmentation import random_channel_swap, random_pitch, random_sign_flip, random_tempo
from encore.inference.permutation import reference_order, reorder


@dataclass(frozen=True, kw_only=True, slots=True)
class MixingPolicy:
    """Data mixing of a training batch; everything is off unless switched on.

    Speed, equaliser, pitch, tempo, channels and signs, in this order, make new voices, instruments and
    noises, remixing, gains and SNR new mixtures of them. Then every item takes one of three roads: with
    probability ``linear_path`` it is moved towards one of its sources by a random ratio, with probability
    ``estimate_path`` it is blended with the separator's own estimate, otherwise it stays.

    Args:
        speed: Range of random playing speeds of each component; None leaves them.
        equaliser_db: Largest gain and cut of a random filter on each component; 0 for none.
        pitch_semitones: Range of random changes of the pitch of each component; None leaves it.
        tempo: Range of random tempi of each component, at its pitch; None leaves it.
        channel_swap: Share of components in [0, 1] whose channels are reversed.
        sign_flip: Share of components in [0, 1] whose sign is turned over.
        remix: Permute every source but the first, and the noise, among the items.
        gain_db: Range of random gains of each component in dB; None leaves them.
        snr_db: Range of random ratios of references to noise in dB; None leaves them.
        linear_path: Share of items in [0, 1] that are moved along the linear path.
        estimate_path: Share of items in [0, 1] that are blended with an estimate; a further separator call
            (without gradient) for each of them.
        ratio_beta: Ratios follow Beta(ratio_beta, 1): 1 is uniform.
        unroll: Steps of the multi-step objective: this many blends of mixture and last estimate are separated
            after the first pass, each with a random ratio, with the loss on every step's output.
        first_weight: Weight in [0, inf) of the first pass's loss in the multi-step objective, where every
            further pass has 1: below 1 the separator learns for what refinement will keep.
        candidates: Ratios drawn for each further pass; with several, each item goes on with the one that
            gives the smallest loss, found without gradient, as under a guide.

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
        """Refuse shares that are no probabilities."""
        if min(self.linear_path, self.estimate_path) < 0 or self.linear_path + self.estimate_path > 1:
            raise ValueError(
                f"linear_path={self.linear_path} and estimate_path={self.estimate_path} are shares of a"
                " batch: both at least 0, together at most 1"
            )
        if self.ratio_beta <= 0 or self.unroll < 0:
            raise ValueError(
                f"ratio_beta={self.ratio_beta} must be positive and unroll={self.unroll} not negative"
            )
        if self.first_weight < 0 or (self.first_weight == 0 and not self.unroll):
            raise ValueError(
                f"first_weight={self.first_weight} must not be negative, nor 0 if no pass follows the first"
            )
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates}: each further pass needs at least 1 ratio")
        if self.equaliser_db < 0 or (self.speed is not None and not 0 < self.speed[0] <= self.speed[1]):
            raise ValueError(
                f"equaliser_db={self.equaliser_db} must not be negative, and speed={self.speed} is a positive"
                " range, the lower end first"
            )
        if not (0 <= self.channel_swap <= 1 and 0 <= self.sign_flip <= 1):
            raise ValueError(
                f"channel_swap={self.channel_swap} and sign_flip={self.sign_flip} are shares of the"
                " components: from 0 to 1"
            )
        if self.tempo is not None and not 0 < self.tempo[0] <= self.tempo[1]:
            raise ValueError(f"tempo={self.tempo} is a positive range, the lower end first")
        if self.pitch_semitones is not None and self.pitch_semitones[0] > self.pitch_semitones[1]:
            raise ValueError(f"pitch_semitones={self.pitch_semitones}: the lower end comes first")

    def __call__(
        self,
        mixture: Tensor,
        references: Tensor,
        *,
        separate: Callable[[Tensor], Tensor],
        interchangeable: bool = False,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch anew.

        Args:
            mixture: ``(b, c, t)``.
            references: ``(b, s, c, t)``.
            separate: Gives the estimates for the estimate path; called without gradient, and only if needed.
            interchangeable: Whether these come in any order, and are to be put into that of the references.
            generator: The source of every draw.

        Returns:
            New ``(mixture, references)`` of the same shapes.
        """
        components = self._augmented(components_of(mixture, references), generator)
        if self.remix:
            components = batch_remix(components, generator=generator)
        if self.gain_db is not None:
            components = random_gains(components, self.gain_db, generator=generator)
        if self.snr_db is not None:
            components = random_snr(components, self.snr_db, generator=generator)

        count, device = len(mixture), mixture.device
        sources = references.shape[1]
        road = torch.rand(count, generator=generator, device=generator.device).to(device)
        source = torch.randint(sources, (count,), generator=generator, device=generator.device).to(device)
        ratio = random_ratios(count, self.ratio_beta, generator=generator, device=device)

        linear = road < self.linear_path
        components = linear_path(components, source, torch.where(linear, ratio, 1.0))
        mixture, references = components.sum(dim=1), components[:, :-1]
        estimated = (road >= self.linear_path) & (road < self.linear_path + self.estimate_path)
        if estimated.any():
            with torch.no_grad():
                estimates = separate(mixture[estimated])
                if interchangeable:
                    estimates = reorder(estimates, reference_order(estimates, references[estimated]))
            mixture, references = mixture.clone(), references.clone()
            mixture[estimated], references[estimated] = estimate_path(
                mixture[estimated], references[estimated], estimates, source[estimated], ratio[estimated]
            )
        return mixture, references

    def _augmented(self, components: Tensor, generator: Generator) -> Tensor:
        """Components ``(b, s + 1, c, t)``, each changed on its own."""
        if self.speed is not None:
            components = random_speed(components, self.speed, generator=generator)
        if self.equaliser_db:
            components = random_equaliser(components, self.equaliser_db, generator=generator)
        if self.pitch_semitones is not None:
            components = random_pitch(components, self.pitch_semitones, generator=generator)
        if self.tempo is not None:
            components = random_tempo(components, self.tempo, generator=generator)
        if self.channel_swap:
            components = random_channel_swap(components, self.channel_swap, generator=generator)
        if self.sign_flip:
            components = random_sign_flip(components, self.sign_flip, generator=generator)
        return components
