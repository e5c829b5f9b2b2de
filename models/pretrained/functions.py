"""Functions and networks of any project as separators; their layout is found by calling them on noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.graphs import Graph
from encore.models.separators.contract import AdaptedSeparator, round_up

LAYOUTS = {"bct": "(batch, channel, time)", "bt": "(batch, time)"}
"""What a function may take; its estimates may have a source axis after the batch, a channel axis, or both."""

EXAMPLES = {"sources": "speech,noise", "sample_rate": "16000"}
"""What must be known of a function, with an example of each."""

LONGEST_STEP = 2**14
"""Samples of the longest frame that is tried for functions of whole frames."""


class as_separator(AdaptedSeparator):  # noqa: N801, used like a function
    """Make a separator of a network or function of one's own.

    It is called on a second of soft noise to find out which shapes it takes and returns, whether it takes
    batches and which lengths it takes. The separator then takes any batch and length: mixtures are padded
    with zeros where the function needs it, and a function that fails on batches or mixes their items is
    called item by item.

    Args:
        function: From ``(b, c, t)`` or ``(b, t)`` to ``(b, s, c, t)``, where the estimates may lack the axis
            of one source or one channel. A network is put into evaluation mode and moves with the separator.
        sources: Names of the estimated sources, in their order; by default ``function.sources``.
        sample_rate: Rate in Hz that it works at; by default ``function.sample_rate``.
        channels: Channels of mixture and estimates; by default ``function.channels``, or else 1.
        layout: ``"bct"`` or ``"bt"``, for a function that takes both shapes with different results.

    Raises:
        ValueError: If something is not known, or the function does not return such estimates.

    Example:
        >>> separate = as_separator(lambda x: 0.5 * x, sources=["speech"], sample_rate=8000)
        >>> separate(torch.ones(2, 1, 100)).shape
        torch.Size([2, 1, 1, 100])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        sources: Sequence[str] | None = None,
        sample_rate: int | None = None,
        channels: int | None = None,
        layout: str | None = None,
    ) -> None:
        known: dict[str, Any] = {"sources": sources, "sample_rate": sample_rate, "channels": channels}
        known = {n: getattr(function, n, None) if value is None else value for n, value in known.items()}
        for name, example in EXAMPLES.items():
            if known[name] is None:
                raise ValueError(f"{_name(function)} does not say its {name}: add {name}={example}")
        known["channels"] = channels = known["channels"] or 1
        fixed = function if isinstance(function, Graph) else Graph
        super().__init__(**known, network=function, shortest=fixed.length or fixed.shortest)
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"layout={layout}: choose one of {', '.join(LAYOUTS)}")
        if layout == "bt" and channels > 1:
            raise ValueError(f"layout=bt takes one channel, not channels={channels}: leave channels out")
        if fixed.batch not in (None, 1):
            raise ValueError(
                f"the graph takes batches of {fixed.batch} only: export it with a free batch axis, or with 1"
            )
        if isinstance(function, nn.Module):
            function.eval()
        self.batch, self.length = fixed.batch, fixed.length
        # a function may draw random numbers, from a generator of the caller's
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self._find_layout([layout] if layout else ["bct", "bt"] if channels == 1 else ["bct"])
            if self.length is None:
                self._find_lengths()

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the function, and give its estimates all four axes.

        Raises:
            ValueError: If the mixture is longer than a function of fixed length takes.
        """
        if self.length is not None and mixture.shape[-1] > self.length:
            raise ValueError(
                f"mixture has {mixture.shape[-1]} samples, and the graph takes {self.length}: cut it "
                f"into segments of {self.length} samples, {self.length / self.sample_rate:.4g} s, or export "
                "it with a free time axis"
            )
        waveforms = mixture if self.layout == "bct" else mixture[:, 0]
        items = torch.split(waveforms, 1) if self.batch == 1 else (waveforms,)
        return torch.cat([self.with_all_axes(self.network(item)) for item in items])

    def _find_layout(self, layouts: Sequence[str]) -> None:
        """Set the layout that works, and whether items are separated one by one."""
        # no number of items that could be taken for sources or channels
        items = next(count for count in (2, 3, 4) if count not in (len(self.sources), self.channels))
        second = max(self.sample_rate, self.shortest)
        lengths = [self.length] if self.length else [second, round_up(second, LONGEST_STEP)]
        batches = [1] if self.batch == 1 else [None, 1]
        faults: list[str] = []
        for length, self.batch in product(lengths, batches):
            found, noise = {}, self._noise(items, length)
            for self.layout in layouts:
                try:
                    found[self.layout] = self._call(noise)
                except Exception as error:  # functions and graphs raise classes of their own
                    faults.append(f"as {LAYOUTS[self.layout]} it fails ({one_line(error)})")
            if found:
                break
        else:
            shape = (items, self.channels, lengths[0])
            raise ValueError(
                f"{_name(self.network)} does not separate noise of shape {shape} with "
                f"sources={','.join(self.sources)} and channels={self.channels}: "
                f"{'; '.join(faults[: len(layouts)])}"
            )
        if len(found) == 2 and not _equal(*found.values()):
            raise ValueError(
                f"layout=None is ambiguous: {' and '.join(LAYOUTS.values())} both work, with different "
                "estimates: give layout=bct or layout=bt"
            )
        self.layout, together = next(iter(found.items()))
        if self.batch is None and not _equal(together[:1], self._call(noise[:1])):
            self.batch = 1

    def _find_lengths(self) -> None:
        """Set the step that lengths are rounded up to, and the shortest length."""
        least = self.shortest
        second = max(self.sample_rate, least)
        # whole frames are powers of two samples, or milliseconds
        powers = [2**k for k in range(LONGEST_STEP.bit_length())]
        steps = [*powers, self.sample_rate // 100, self.sample_rate // 50]
        for self.step in filter(None, steps):
            self.shortest = round_up(least, self.step)
            # two odd multiples, which no larger step divides
            count = -(-second // self.step) | 1
            if all(self._works(self.step * number) for number in (count, count + 2)):
                break
        else:
            raise ValueError(
                "the function separates some lengths only: let it pad its input, and cut its estimates to "
                "the input's length"
            )
        while self.shortest < second and not self._works(self.shortest, finite=True):
            self.shortest *= 2
        self.shortest = min(self.shortest, round_up(second, self.step))

    def _works(self, length: int, *, finite: bool = False) -> bool:
        try:
            estimates = self._call(self._noise(1, length))
        except Exception:  # functions and graphs raise classes of their own
            return False
        return not finite or bool(estimates.isfinite().all())

    def _call(self, noise: Tensor) -> Tensor:
        torch.default_generator.manual_seed(0)
        estimates: Tensor = self(noise)
        return estimates

    def _noise(self, items: int, length: int) -> Tensor:
        noise = torch.randn(items, self.channels, length, generator=torch.Generator().manual_seed(0))
        network = self.network if isinstance(self.network, nn.Module) else None
        weights = None if network is None else next(network.parameters(), None)
        return 0.1 * (noise if weights is None else noise.to(weights.device))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Return whether estimates are the same but for rounding."""
    return bool(
        torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().max()), equal_nan=True)
    )
