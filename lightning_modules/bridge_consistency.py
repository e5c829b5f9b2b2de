"""Consistency training and distillation of bridges, for sampling with one or two function evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encore.lightning_modules.bridge import BridgeModule, BridgeState
from encore.models.checkpoint import load_checkpoint
from encore.models.denoisers.bridge_separator import BridgeSeparator


class ConsistencyModule(BridgeModule):
    """Train a bridge's network to map any state of a deterministic path to the end of that path.

    Each item gets a time u of an even grid and the state ``x_u``. A step of the bridge's ODE takes that state
    to the next lower time t with the teacher's estimate ``D``,
    ``x_t = a_t D + b_t x_0 + c_t (x_u - a_u D - b_u x_0) / c_u``, or, without a teacher, with the source
    itself, which keeps the noise. The target at u is the network's estimate at t, without gradient; at the
    grid's end it is the state itself. Sample with the consistency sampler.

    At t = 1 the state is the mixture and does not depend on the noise, so with a squared loss the first
    evaluation gives the mean of the paths' ends; only the second can give one of them.

    Args:
        separator: The bridge with its network, best started from the teacher's weights.
        teacher: Checkpoint of a bridge with the same process, domain and sources; None to train without.
        grid: Steps of the grid, 1 or more.
        **options: As of `BridgeModule`.

    Raises:
        ValueError: If an option is invalid, or the teacher does not match.

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
        # in a list, so that neither checkpoints nor the optimizer treat it as a part of the module
        self._teacher = [] if teacher is None else [_teacher(teacher, separator)]

    def on_fit_start(self) -> None:
        """Move the teacher to the device of the module."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def _times(self, drawn: Tensor) -> Tensor:
        """Map uniform numbers to the grid's times without its end."""
        return super()._times(((drawn * self.grid).floor() + 1) / self.grid)

    @torch.no_grad()
    def _targets(self, point: BridgeState, references: Tensor) -> Tensor:
        """Estimate one step further down the path; at the grid's end, return the state itself."""
        separator, bridge, time = self.separator, self.separator.bridge, references.shape[-1]
        level = references.new_ones(len(references), 1, 1, 1)
        estimate = point.source
        for teacher in self._teacher:
            estimate = teacher.denoise(point.state, point.t, point.mixture)
        kept = bridge.noise_of(point.state, point.t, estimate, point.mixture)
        # at the mixture itself a path starts with fresh noise
        kept = torch.where(torch.isfinite(kept), kept, point.noise)
        step = (bridge.start - self.t_min) / self.grid
        t = (point.t - step).clamp_min(self.t_min)
        state = bridge.state(t, estimate, point.mixture, kept)
        ends = (t < self.t_min + step / 2)[:, None, None, None]
        further = separator.estimate(state, t, point.mixture, level, time)
        return torch.where(ends, separator.decode(state, level, time), further)


def _teacher(path: str | Path, separator: BridgeSeparator) -> BridgeSeparator:
    """Load a frozen bridge and check that it has the same process as another.

    Raises:
        ValueError: If it has not.
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
