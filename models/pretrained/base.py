"""Base of pretrained separators: any length in, the same length out, shapes checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from encore.models.separators.contract import SeparatorNetwork


class PretrainedSeparator(SeparatorNetwork):
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
        self.network, self.shortest, self.step = network, shortest, step

    def separate(self, mixture: Tensor) -> Tensor:
        """Separate a mixture whose shape has been checked.

        Raises:
            ValueError: If the shape of the network's estimates is wrong.
        """
        length = mixture.shape[-1]
        padded = self.shortest + round_up(max(0, length - self.shortest), self.step)
        mixture = F.pad(mixture, (0, padded - length))
        estimates = self.estimate(mixture)[..., :length]
        expected = (len(mixture), len(self.sources), self.channels, length)
        if estimates.shape != expected:
            raise ValueError(
                f"estimates are {tuple(estimates.shape)}, not (batch, source, channel, time) = {expected}: "
                f"check sources={','.join(self.sources)} and channels={self.channels}"
            )
        return estimates

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the network: ``(batch, channel, time)`` to ``(batch, source, channel, time or more)``."""
        assert self.network is not None
        return self.with_all_axes(self.network(mixture))

    def with_all_axes(self, estimates: Any) -> Tensor:
        """Return estimates with the axis of their one source or channel where it is missing."""
        if not isinstance(estimates, Tensor):
            raise ValueError(f"it returns a {type(estimates).__name__}, not a tensor")
        sources, channels = len(self.sources), self.channels
        given = estimates.shape[1:-1].numel()
        if 2 <= estimates.ndim <= 3 and given == sources * channels == max(sources, channels):
            return estimates.reshape(len(estimates), sources, channels, estimates.shape[-1])
        return estimates


def round_up(length: int, step: int) -> int:
    """Return the least multiple of ``step`` that is not below ``length``."""
    return -(-length // step) * step


def default_names(count: int) -> tuple[str, ...]:
    """Return names for the sources of a speech separator that does not name them.

    >>> default_names(1), default_names(2)
    (('speech',), ('speaker1', 'speaker2'))
    """
    return ("speech",) if count == 1 else tuple(f"speaker{number}" for number in range(1, count + 1))
