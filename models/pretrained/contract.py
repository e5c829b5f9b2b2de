"""What every network behind a door is wrapped in: any length in, the same length out, shapes checked."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import Resample

from encore.models.levels import Standardising
from encore.models.separators.contract import check_description, check_mixture

# The filter of data.audio, which a sibling may not import: librosa's "kaiser_best", so that a separator
# behind a change of rate hears what a file at that rate would give it.
_ZERO_CROSSINGS, _ROLLOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492


class OpenedSeparator(nn.Module):
    """A separator of another project behind this project's contract; a door implements `estimate`.

    Args:
        sources: Names of the estimated sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates.
        channels: Channels of mixture and estimates.
        shortest: Samples below which a mixture is padded with zeros at its end; the estimates are cut back.

    Raises:
        ValueError: If a value makes no sense.
    """

    def __init__(self, sources: Sequence[str], sample_rate: int, channels: int, *, shortest: int = 1) -> None:
        super().__init__()
        self.sources = checked_sources(sources)
        check_description(sources, sample_rate, channels)
        self.sample_rate, self.channels, self.shortest = int(sample_rate), int(channels), shortest

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mixture: ``(batch, channel, time)``, full scale 1.0, any time from one sample up.

        Returns:
            Estimates ``(batch, source, channel, time)``, in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture is wrong, or the network does not estimate what it says.
        """
        check_mixture(mixture, self.channels)
        length = mixture.shape[-1]
        padded = F.pad(mixture, (0, self.padded_length(length) - length))
        estimates = self.estimate(padded)[..., :length]
        wanted = (len(mixture), len(self.sources), self.channels, length)
        if estimates.shape != wanted:
            raise ValueError(
                f"estimates are {tuple(estimates.shape)}, not (batch, source, channel, time) = {wanted}: "
                f"check sources={','.join(self.sources)} and channels={self.channels}"
            )
        return estimates

    def padded_length(self, length: int) -> int:
        """Samples, at least ``length``, that the network is given for a mixture of ``length`` samples."""
        return max(length, self.shortest)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the network: ``(batch, channel, time)`` to ``(batch, source, channel, time or more)``."""
        raise NotImplementedError


class Resampled(OpenedSeparator):
    """A separator at another rate than its network's: the mixture is resampled, and the estimates back.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sample_rate: Rate in Hz that mixture and estimates shall have.

    Source: J. O. Smith, "Digital audio resampling", 2002, with the Kaiser window of librosa's "kaiser_best".
    """

    def __init__(self, separator: OpenedSeparator, sample_rate: int) -> None:
        super().__init__(separator.sources, sample_rate, separator.channels)
        self.separator = separator
        self.there = _resample(sample_rate, separator.sample_rate)
        self.back = _resample(separator.sample_rate, sample_rate)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate at the network's rate; both ways round lengths up, so no sample is lost."""
        resampled: Tensor = self.back(self.separator(self.there(mixture.contiguous())).contiguous())
        return resampled


class Levelled(Standardising, OpenedSeparator):
    """A separator whose network cares for the level of its input, or gives estimates of arbitrary level.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        level: ``"standardise"`` or ``"least_squares"``, see `encore.models.pretrained.conventions`.
    """

    def __init__(self, separator: OpenedSeparator, level: str) -> None:
        super().__init__(separator.sources, separator.sample_rate, separator.channels)
        self.separator = separator
        self.level, self.standardises = level, level == "standardise"

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate with the levels of each item minded, by itself."""
        if self.level == "standardise":
            return self.at_own_level(self.separator, mixture)
        estimates: Tensor = self.separator(mixture)
        total = estimates.sum(dim=1)
        power = total.square().sum(dim=(-2, -1))
        common = (mixture * total).sum(dim=(-2, -1))
        # silence has no level, and stays as it is
        gain = torch.where(power > 0, common / torch.where(power > 0, power, 1), 1)
        return estimates * rearrange(gain, "b -> b 1 1 1")


def checked_sources(sources: Sequence[str]) -> tuple[str, ...]:
    """Names of sources, if they are different and can name files.

    Raises:
        ValueError: If they are not.
    """
    names = tuple(str(name) for name in sources)
    bad = [name for name in names if not name or "/" in name or "\\" in name]
    if isinstance(sources, str) or not names or len(set(names)) != len(names) or bad:
        raise ValueError(f"sources={','.join(names)}: give different names, such as speaker1,speaker2")
    return names


def default_names(count: int) -> tuple[str, ...]:
    """Names for the sources of a speech separator that does not say them: speech, or speaker1, speaker2, ...

    >>> default_names(1), default_names(2)
    (('speech',), ('speaker1', 'speaker2'))
    """
    return ("speech",) if count == 1 else tuple(f"speaker{number}" for number in range(1, count + 1))


def _resample(from_rate: int, to_rate: int) -> Resample:
    divisor = gcd(from_rate, to_rate)
    return Resample(
        from_rate // divisor,
        to_rate // divisor,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=_ZERO_CROSSINGS,
        rolloff=_ROLLOFF,
        beta=_BETA,
    )
