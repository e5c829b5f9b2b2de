"""Base classes of this project's networks and of adapters to those of others, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


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


class AdaptedSeparator(SeparatorNetwork):
    """A network of another project under this project's contract.

    Args:
        sources: Names of the estimated sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates.
        channels: Channels of mixture and estimates.
        network: From ``(batch, channel, time)`` to ``(batch, source, channel, time or more)``, where the axis
            of one source or of one channel may be missing. Subclasses that implement `estimate` need none.
        shortest: Samples that it takes at least.
        step: Samples that lengths which it takes are apart. Mixtures are padded with zeros at their end, to
            ``shortest`` or whole steps more, and the estimates cut back.

    Raises:
        ValueError: If a value is invalid.
    """

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int,
        network: Callable[[Tensor], Any] | None = None,
        *,
        shortest: int = 1,
        step: int = 1,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        self.network: Any = network
        self.shortest, self.step = shortest, step

    def separate(self, mixture: Tensor) -> Tensor:
        """Separate a mixture whose shape has been checked.

        Raises:
            ValueError: If the shape of the network's estimates is wrong.
        """
        batch, _, length = mixture.shape
        beyond = length - self.shortest
        # TorchScript's tracer, which gives tensors, would decide a comparison for all lengths
        beyond = (beyond + abs(beyond)) // 2 if isinstance(beyond, Tensor) else max(beyond, 0)
        # no negative number is divided, as ONNX would round that towards zero
        padded = self.shortest + round_up(beyond, self.step)
        estimates = self.estimate(F.pad(mixture, (0, padded - length)))
        expected = (batch, len(self.sources), self.channels)
        if estimates.shape[:-1] != expected or estimates.shape[-1] < length:
            raise ValueError(
                f"estimates are {tuple(estimates.shape)}, not (batch, source, channel, time) = "
                f"{(*expected, length)}: check sources={','.join(self.sources)} and channels={self.channels}"
            )
        # under autocast some networks give bfloat16, too coarse to take a loss or a score of
        return estimates[..., :length].to(mixture.dtype)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the network: ``(batch, channel, time)`` to ``(batch, source, channel, time or more)``."""
        return self.with_all_axes(self.network(mixture))

    def with_all_axes(self, estimates: Any) -> Tensor:
        """Return estimates with the axis of their one source or channel where it is missing."""
        if not isinstance(estimates, Tensor):
            raise ValueError(f"it returns a {type(estimates).__name__}, not a tensor")
        sources, channels = len(self.sources), self.channels
        given = estimates.shape[1:-1].numel()
        if 2 <= estimates.ndim <= 3 and given == sources * channels == max(sources, channels):
            return estimates.reshape(estimates.shape[0], sources, channels, estimates.shape[-1])
        return estimates


def round_up(length: int, step: int) -> int:
    """Return the least multiple of ``step`` that is not below ``length``, 0 or more."""
    return (length + step - 1) // step * step


def default_names(count: int) -> tuple[str, ...]:
    """Return names for the sources of a speech separator that does not name them.

    >>> default_names(1), default_names(2)
    (('speech',), ('speaker1', 'speaker2'))
    """
    return ("speech",) if count == 1 else tuple(f"speaker{number}" for number in range(1, count + 1))


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
