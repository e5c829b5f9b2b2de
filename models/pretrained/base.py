"""Base of pretrained separators: any length in, the same length out, shapes checked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.dsp import resample
from encore.models.levels import InputNormalization
from encore.models.separators.contract import check_description, check_mixture


class PretrainedSeparator(nn.Module):
    """A separator of another project under this project's contract; a subclass implements `estimate`.

    Args:
        sources: Names of the estimated sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates.
        channels: Channels of mixture and estimates.
        shortest: Samples below which a mixture is padded with zeros at its end; the estimates are cut back.

    Raises:
        ValueError: If a value is invalid.
    """

    def __init__(self, sources: Sequence[str], sample_rate: int, channels: int, *, shortest: int = 1) -> None:
        super().__init__()
        self.sources = check_sources(sources)
        check_description(sources, sample_rate, channels)
        self.sample_rate, self.channels, self.shortest = int(sample_rate), int(channels), shortest

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mixture: ``(batch, channel, time)``, full scale 1.0, any time from one sample up.

        Returns:
            Estimates ``(batch, source, channel, time)``, in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture or of the network's estimates is wrong.
        """
        check_mixture(mixture, self.channels)
        length = mixture.shape[-1]
        padded = F.pad(mixture, (0, self.padded_length(length) - length))
        estimates = self.estimate(padded)[..., :length]
        expected = (len(mixture), len(self.sources), self.channels, length)
        if estimates.shape != expected:
            raise ValueError(
                f"estimates are {tuple(estimates.shape)}, not (batch, source, channel, time) = {expected}: "
                f"check sources={','.join(self.sources)} and channels={self.channels}"
            )
        return estimates

    def padded_length(self, length: int) -> int:
        """Return the samples, at least ``length``, that the network gets for ``length`` samples."""
        return max(length, self.shortest)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the network: ``(batch, channel, time)`` to ``(batch, source, channel, time or more)``."""
        raise NotImplementedError


class Resampled(PretrainedSeparator):
    """A separator at another rate than its network's: the mixture is resampled, and the estimates back.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sample_rate: Rate in Hz of mixture and estimates.
    """

    def __init__(self, separator: PretrainedSeparator, sample_rate: int) -> None:
        super().__init__(separator.sources, sample_rate, separator.channels)
        self.separator = separator

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate at the network's rate; both resamplings round lengths up, so no sample is lost."""
        inner = self.separator.sample_rate
        return resample(self.separator(resample(mixture, self.sample_rate, inner)), inner, self.sample_rate)


class Levelled(InputNormalization, PretrainedSeparator):
    """A separator whose network needs a certain input level, or gives estimates of arbitrary level.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        level: ``"standardise"`` or ``"least_squares"``, see `encore.models.pretrained.common_options`.
    """

    def __init__(self, separator: PretrainedSeparator, level: str) -> None:
        super().__init__(separator.sources, separator.sample_rate, separator.channels)
        self.separator = separator
        self.level, self.normalizes = level, level == "standardise"

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate with each item at its own level."""
        if self.level == "standardise":
            return self.at_own_level(self.separator, mixture)
        estimates: Tensor = self.separator(mixture)
        total = estimates.sum(dim=1)
        power = total.square().sum(dim=(-2, -1))
        common = (mixture * total).sum(dim=(-2, -1))
        # silence has no level, and stays as it is
        gain = torch.where(power > 0, common / torch.where(power > 0, power, 1), 1)
        return estimates * rearrange(gain, "b -> b 1 1 1")


def check_sources(sources: Sequence[str]) -> tuple[str, ...]:
    """Return names of sources that are different and can name files.

    Raises:
        ValueError: If they are not.
    """
    names = tuple(str(name) for name in sources)
    bad = [name for name in names if not name or "/" in name or "\\" in name]
    if isinstance(sources, str) or not names or len(set(names)) != len(names) or bad:
        raise ValueError(f"sources={','.join(names)}: give different names, such as speaker1,speaker2")
    return names


def default_names(count: int) -> tuple[str, ...]:
    """Return names for the sources of a speech separator that does not name them.

    >>> default_names(1), default_names(2)
    (('speech',), ('speaker1', 'speaker2'))
    """
    return ("speech",) if count == 1 else tuple(f"speaker{number}" for number in range(1, count + 1))
