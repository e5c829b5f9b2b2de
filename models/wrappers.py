"""Wrappers, separator to separator: some of its sources, other channels, another rate, another level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from encore.common.dsp import resample
from encore.models.levels import InputNormalization
from encore.models.separators.contract import check_description, check_mixture
from encore.models.types import LoadedSeparator, Separator, permutation_groups


class SeparatorWrapper(nn.Module):
    """A separator made of another one, of the same sources, rate and channels unless it says otherwise.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
    """

    def __init__(self, separator: LoadedSeparator) -> None:
        super().__init__()
        self.separator = separator
        self.sources = tuple(separator.sources)
        self.sample_rate, self.channels = separator.sample_rate, separator.channels


def select(separator: LoadedSeparator, *sources: str | Iterable[str]) -> LoadedSeparator:
    """Return a separator of some of another one's sources.

    Args:
        separator: The other one.
        sources: Their names, or one sequence of names: ``select(net, "vocals", "drums")``.

    Raises:
        ValueError: See `SelectSources`.
    """
    names = [name for part in sources for name in ([part] if isinstance(part, str) else part)]
    # the separator itself keeps what it can do besides, such as being a bridge
    return separator if tuple(names) == tuple(separator.sources) else SelectSources(separator, names)


class SelectSources(SeparatorWrapper):
    """A separator of some of another one's sources: the others are not kept, refined or written.

    Args:
        separator: Any separator with ``sources``, ``sample_rate`` and ``channels``.
        sources: Names of the sources to keep, in the order of the estimates.

    Raises:
        ValueError: If there is no such source, or only some of several interchangeable ones are named, such
            as one of two speakers.
    """

    def __init__(self, separator: LoadedSeparator, sources: Sequence[str]) -> None:
        known = tuple(separator.sources)
        names = ",".join(sources)
        if absent := [name for name in sources if name not in known]:
            raise ValueError(f"sources={names}: {absent[0]!r} is none of {', '.join(known)}")
        for group in permutation_groups(known):
            together = [known[index] for index in group]
            if 0 < len(set(together) & set(sources)) < len(together):
                raise ValueError(
                    f"sources={names}: {', '.join(together)} come in any order; name all of them"
                )
        if not sources or len(set(sources)) != len(sources):
            raise ValueError(f"sources={names}: give different names of {', '.join(known)}")
        super().__init__(separator.only(sources) if hasattr(separator, "only") else separator)
        self._indices = [self.sources.index(name) for name in sources]
        self.sources = tuple(sources)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channel, time)`` into the kept sources ``(batch, source, channel, time)``."""
        return self.separator(mixture)[:, self._indices]


def match_channels(separator: LoadedSeparator, channels: int) -> Separator:
    """Wrap a separator so that it accepts audio of ``channels`` channels.

    A mono separator separates every channel on its own; a separator of more channels gets a mono mixture in
    all of them, and its estimates are averaged over them. The result is one function of the whole item, so
    that a refinement chooses one mixing ratio for all channels.

    Args:
        separator: Accepts its attribute ``channels`` of channels.
        channels: Channels of the audio, at least 1.

    Returns:
        A separator from ``(batch, channels, time)`` to ``(batch, source, channels, time)``.

    Raises:
        ValueError: If the audio has several channels and the separator another number of them.
    """
    if channels == separator.channels:
        return separator
    if separator.channels == 1 or channels == 1:
        return MatchedChannels(separator, channels)
    raise ValueError(
        f"channels={channels}: the separator takes {separator.channels}; give audio of {separator.channels} "
        "or 1 channels, or a mono separator, which separates every channel"
    )


class MatchedChannels(SeparatorWrapper):
    """A separator of mono audio by channel, or of several channels for mono audio; see `match_channels`."""

    def __init__(self, separator: LoadedSeparator, channels: int) -> None:
        super().__init__(separator)
        self.channels = channels

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channels, time)``."""
        if self.channels == 1:
            several = mixture.expand(-1, self.separator.channels, -1)
            return self.separator(several).mean(dim=2, keepdim=True)
        estimates = self.separator(rearrange(mixture, "b c t -> (b c) 1 t"))
        return rearrange(estimates, "(b c) s 1 t -> b s c t", c=self.channels)


class Resampled(SeparatorWrapper):
    """A separator at another rate than its network's: the mixture is resampled, and the estimates back.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sample_rate: Rate in Hz of mixture and estimates.
    """

    def __init__(self, separator: LoadedSeparator, sample_rate: int) -> None:
        super().__init__(separator)
        self.sample_rate = sample_rate

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate at the network's rate; both resamplings round lengths up, so no sample is lost."""
        check_mixture(mixture, self.channels)
        inner = self.separator.sample_rate
        estimates = self.separator(resample(mixture, self.sample_rate, inner))
        return resample(estimates, inner, self.sample_rate)[..., : mixture.shape[-1]]


class Standardised(InputNormalization, SeparatorWrapper):
    """A separator whose network takes mixtures of mean 0 and deviation 1, as it was trained with.

    Both are measured on the mean of the channels, item by item, and undone in every estimate.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
    """

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate with each item at its own level."""
        check_mixture(mixture, self.channels)
        return self.at_own_level(self.separator, mixture)


class LeastSquares(SeparatorWrapper):
    """A separator whose estimates are scaled so that their sum is closest to the mixture, item by item.

    For networks trained on a scale-invariant loss, whose estimates have an arbitrary level.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
    """

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate, and multiply all estimates of an item by one number."""
        estimates = self.separator(mixture)
        total = estimates.sum(dim=1)
        power = total.square().sum(dim=(-2, -1))
        common = (mixture * total).sum(dim=(-2, -1))
        # silence has no level, and stays as it is
        gain = torch.where(power > 0, common / torch.where(power > 0, power, 1), 1)
        return estimates * rearrange(gain, "b -> b 1 1 1")


LEVELS: dict[str, type[SeparatorWrapper] | None] = {
    "none": None,
    "standardise": Standardised,
    "least_squares": LeastSquares,
}
"""Wrappers that change the level of mixture or estimates, by the value of the option ``level``."""


class PerSource(nn.ModuleList):
    """Separators of different sources as one, such as a network per stem: all get the same mixture.

    Args:
        separators: With ``sources``, ``sample_rate`` and ``channels``; one or more.

    Raises:
        ValueError: If there is none, rates or channels differ, or two estimate the same source.
    """

    side_by_side = True  # see `encore.models.levels.without_normalization`

    def __init__(self, separators: Sequence[Any]) -> None:
        if not separators:
            raise ValueError("per_source names no separator: write per_source:vocals.ckpt,drums.ckpt")
        for name in ("sample_rate", "channels"):
            found = {getattr(part, name) for part in separators}
            if len(found) > 1:
                raise ValueError(
                    f"separators of per_source have {name} {sorted(found)}: name those that agree"
                )
        super().__init__(separators)
        self.sources = tuple(source for part in separators for source in part.sources)
        self.sample_rate, self.channels = separators[0].sample_rate, separators[0].channels
        check_description(self.sources, self.sample_rate, self.channels)

    def forward(self, mixture: Tensor) -> Tensor:
        """Call one separator after the other: ``(b, c, t)`` to ``(b, s, c, t)``."""
        check_mixture(mixture, self.channels)
        return torch.cat([part(mixture) for part in self], dim=1)

    def only(self, sources: Sequence[str]) -> PerSource:
        """Return the separators alone that estimate one of these sources, so that no other is called."""
        parts: list[Any] = list(self)
        return PerSource([part for part in parts if set(part.sources) & set(sources)])
