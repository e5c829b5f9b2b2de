"""Base classes of this project's networks, and the checks that adapters of other projects share with them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class AudioNetwork(nn.Module):
    """A network that names its sources, rate and channels.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio.

    Attributes:
        compilable: Names of the methods that `torch.compile` is applied to; the whole network if empty.

    Raises:
        ValueError: If a value is invalid.
    """

    compilable: tuple[str, ...] = ()

    def __init__(self, sources: Sequence[str], sample_rate: int, channels: int) -> None:
        super().__init__()
        check_description(sources, sample_rate, channels)
        self.sources = tuple(str(name) for name in sources)
        self.sample_rate, self.channels = int(sample_rate), int(channels)


class SeparatorNetwork(AudioNetwork):
    """A separator that checks the shape of its input.

    Attributes:
        any_channels: Whether it also takes other numbers of channels, each separated by itself.
    """

    any_channels = False

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mixture: ``(batch, channel, time)``, any level, any time from one sample up.

        Returns:
            Estimates ``(batch, source, channel, time)``, in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture is wrong.
        """
        check_mixture(mixture, None if self.any_channels else self.channels)
        return self.separate(mixture)

    def separate(self, mixture: Tensor) -> Tensor:
        """Separate a mixture whose shape has been checked; see `forward`."""
        raise NotImplementedError


def check_description(sources: Sequence[str], sample_rate: int, channels: int) -> None:
    """Check the description of a separator.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate in Hz.
        channels: Number of audio channels.

    Raises:
        ValueError: If there are no names, they repeat, are one string or cannot name files, or if a number is
            not positive.
    """
    unfit = [name for name in map(str, sources) if not name or "/" in name or "\\" in name]
    if isinstance(sources, str) or not sources or len(set(sources)) != len(sources) or unfit:
        raise ValueError(f"sources={sources!r}: give different names, such as ['speech', 'noise']")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate}: give a positive rate in Hz, such as 16000")
    if channels < 1:
        raise ValueError(f"channels={channels}: give the number of channels, 1 or more")


def check_mixture(mixture: Tensor, channels: int | None) -> None:
    """Check that a mixture is ``(batch, channel, time)`` with this many channels; with any, if None.

    Raises:
        ValueError: If it has another shape, or no sample.
    """
    if mixture.ndim != 3 or mixture.shape[1] != (channels or mixture.shape[1]) or mixture.shape[2] == 0:
        number = "any number of channels" if channels is None else f"{channels} channel(s)"
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}: give (batch, channel, time) "
            f"with {number} and at least one sample"
        )


def check_sizes(**sizes: int) -> None:
    """Check that named sizes of layers are 1 or more.

    Raises:
        ValueError: If one is not.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: give 1 or more")


def check_compression(compression: float) -> None:
    """Check the exponent of compressed magnitudes.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0 < compression <= 1:
        raise ValueError(f"compression={compression}: give an exponent above 0, at most 1")
