"""Consistency training and distillation of bridges: estimates that need one or two calls, not thirty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encore.lightning_modules.bridge import BridgeModule, Place
from encore.models.checkpoint import load_checkpoint
from encore.models.denoisers.bridge_separator import BridgeSeparator


class ConsistencyModule(BridgeModule):
    """Train a bridge's network to give, from any state of a deterministic path, where that path ends.

    Each item gets a place on an even grid of times and the state ``x_u`` there. A step of the bridge's ODE
    takes that state to the next lower time t, under the teacher's estimate ``D``,
    ``x_t = a_t D + b_t x_0 + c_t (x_u - a_u D - b_u x_0) / c_u``, or, without a teacher, under the source
    itself, which keeps the noise. What the network finds at t, without gradient, is what it has to find at
    u; at the grid's end that is the state itself. Sample with ``path="renoise"``.

    At t = 1 the state is the mixture and says nothing of the noise, so that with a squared loss one call
    gives the mean of where the paths end; the second call is the first that can give one of them.

    Args:
        separator: The bridge with its network, best started from the teacher's weights.
        teacher: Checkpoint of a bridge with the same process, domain and sources; None to train without.
        grid: Steps of the grid, 1 or more.
        **options: As of `BridgeModule`.

    Raises:
        ValueError: If an option does not fit, or the teacher.

    Source: Y. Song et al., "Consistency Models", 2023; G. He et al., "Consistency Diffusion Bridge Models",
    2024.
    """

    def __init__(
        self, separator: BridgeSeparator, *, teacher: str | Path | None = None, grid: int = 10, **options: Any
    ) -> None:
        super().__init__(separator, **options)
        if grid < 1:
            raise ValueError(f"grid={grid}: give 1 or more")
        self.grid = grid
        # in a list, so that neither checkpoints nor the optimiser take it for a part of the module
        self._teacher = [] if teacher is None else [_teacher(teacher, separator)]

    def on_fit_start(self) -> None:
        """Bring the teacher to the device that was chosen."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def _times(self, drawn: Tensor) -> Tensor:
        """The grid's times, but its end."""
        return super()._times(((drawn * self.grid).floor() + 1) / self.grid)

    @torch.no_grad()
    def _targets(self, place: Place, references: Tensor) -> Tensor:
        """What the network finds one step further down the path, or the grid's end itself."""
        separator, bridge, time = self.separator, self.separator.bridge, references.shape[-1]
        level = references.new_ones(len(references), 1, 1, 1)
        found = place.source
        for teacher in self._teacher:
            found = teacher.denoise(place.state, place.t, place.mixture)
        kept = bridge.noise_in(place.state, place.t, found, place.mixture)
        # at the mixture itself a path begins with noise of its own
        kept = torch.where(torch.isfinite(kept), kept, place.noise)
        step = (bridge.start - self.first_time) / self.grid
        t = (place.t - step).clamp_min(self.first_time)
        state = bridge.state(t, found, place.mixture, kept)
        ends = (t < self.first_time + step / 2)[:, None, None, None]
        further = separator.estimate(state, t, place.mixture, level, time)
        return torch.where(ends, separator.decode(state, level, time), further)


def _teacher(path: str | Path, separator: BridgeSeparator) -> BridgeSeparator:
    """A frozen bridge of the process of another.

    Raises:
        ValueError: If it is none.
    """
    teacher = load_checkpoint(path)
    if not isinstance(teacher, BridgeSeparator):
        raise ValueError(f"teacher='{path}' is a {type(teacher).__name__}: give the checkpoint of a bridge")
    for name in ("domain", "scale", "sources", "sample_rate", "channels"):
        given, wanted = getattr(teacher, name), getattr(separator, name)
        if given != wanted:
            raise ValueError(
                f"teacher='{path}' has {name}={given!r}, the model {wanted!r}: they must be the same"
            )
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    pairs = zip(teacher.bridge.coefficients(times), separator.bridge.coefficients(times), strict=True)
    if not all(torch.allclose(given, wanted) for given, wanted in pairs):
        raise ValueError(
            f"teacher='{path}' is a {type(teacher.bridge).__name__} of other coefficients than the model's "
            f"{type(separator.bridge).__name__}: choose the same model.bridge"
        )
    return teacher.eval().requires_grad_(False)
