"""Asteroid's waveform separators behind this project's contract: any length in, the same length out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.names import nearest
from encore.common.packages import require
from encore.models.separators.contract import AdaptedSeparator

ARCHITECTURES = ("ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet")
"""The classes of ``asteroid.models`` that map waveforms to waveforms and build on today's torch."""

WITHOUT_DEPENDENCIES = "pip install --no-deps asteroid==0.7.0"
"""What installs asteroid beside this project: it declares torchmetrics<=0.11.4 but imports none of it."""

INSTALL = f"pip install asteroid-filterbanks huggingface-hub && {WITHOUT_DEPENDENCIES}"
"""What installs asteroid, and what it imports."""

_PAD_THEMSELVES = frozenset({"SuDORMRFImprovedNet", "SuDORMRFNet"})
_SET_BY_THE_ADAPTER = {"n_src": "sources", "sample_rate": "sample_rate"}


class AsteroidSeparator(AdaptedSeparator):
    """One of asteroid's networks as a separator.

    Three things are added to the network:

    - *Length.* An encoder without padding needs one whole kernel, and leaves the samples after its last
      whole frame silent. The mixture is padded with zeros at its end up to the next whole frame, and the
      estimates are cut back, so every length from one sample up comes out as it went in, and lengths that
      are whole frames already give what the bare network gives.
    - *Channels.* Each channel is separated by itself (channels are folded into the batch), with the same
      weights; the networks see one channel only.
    - *Level.* Nothing is normalised, before or after.

    It computes asteroid's global layer norm by torch's own kernel: the same numbers up to
    rounding, under the same parameter names, in less time (docs/results.md).

    Args:
        architecture: Name of a class in ``asteroid.models``, one of `ARCHITECTURES`.
        sources: Names of the estimated sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates.
        channels: Channels of mixture and estimates.
        options: Further keywords of the class, such as ``n_filters``; its own defaults hold for the others.

    Raises:
        ValueError: If the architecture or an option is unknown, or a value makes no sense.

    Source: M. Pariente et al., "Asteroid: the PyTorch-based audio source separation toolkit for
    researchers", 2020.
    """

    def __init__(
        self,
        architecture: str,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        self.network = _build(architecture, len(self.sources), self.sample_rate, dict(options or {}))
        self.shortest, self.step = frames(self.network)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the network on every channel."""
        estimates: Tensor = self.network(rearrange(mixture, "b c t -> (b c) 1 t"))
        return rearrange(estimates, "(b c) s t -> b s c t", c=self.channels)


def frames(network: Any) -> tuple[int, int]:
    """Return the fewest samples that a network of asteroid's takes, and the step to the next such length."""
    name, filterbank = type(network).__name__, network.encoder.filterbank
    if name in _PAD_THEMSELVES:
        return 1, 1
    kernel, stride = int(filterbank.kernel_size), int(filterbank.stride)
    if name != "DCUNet":
        return kernel, stride
    # its strides in time want whole steps of frames, and its deepest layer one of them at least
    step = stride * int(network.masker.encoders_stride_product[1])
    return kernel + step, step


def _build(architecture: str, number_of_sources: int, sample_rate: int, options: dict[str, Any]) -> nn.Module:
    """Build a network by name, after the checks that asteroid lacks: it ignores unknown keywords."""
    if architecture not in ARCHITECTURES:
        near = ", ".join(nearest(architecture, ARCHITECTURES, 3))
        raise ValueError(f"architecture={architecture!r} is unknown: use {near}")
    # importing asteroid takes seconds, and most runs never need it
    asteroid_models = require("asteroid.models", needed_by=f"architecture={architecture!r}", install=INSTALL)
    network_class: type[nn.Module] = getattr(asteroid_models, architecture)
    keywords = {
        name: parameter.default
        for name, parameter in inspect.signature(network_class).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    for name in options:
        if name in _SET_BY_THE_ADAPTER:
            raise ValueError(
                f"options.{name} follows from {_SET_BY_THE_ADAPTER[name]}: leave it out of options"
            )
        if name not in keywords:
            allowed = [keyword for keyword in keywords if keyword not in _SET_BY_THE_ADAPTER]
            near = ", ".join(nearest(str(name), allowed, 3))
            raise ValueError(f"options.{name} is unknown to {architecture}: use {near}")
    if number_of_sources == 1 and options.get("mask_act", keywords["mask_act"]) == "softmax":
        # a softmax over one source is 1 everywhere: the network would return its input and never learn
        raise ValueError("options.mask_act='softmax' needs two sources or more: use 'sigmoid' or 'relu'")
    network: Any = network_class(n_src=number_of_sources, sample_rate=sample_rate, **options)
    if architecture == "ConvTasNet" and network.masker.skip_chan:
        # nothing reads the residual of the last block; trainable but without a gradient, it stops
        # distributed training
        network.masker.TCN[-1].res_conv.requires_grad_(False)
    _fuse_norms(network)
    return network


class _GlobalNorm(nn.Module):
    """Asteroid's ``GlobLN`` of ``(b, c, ...)`` in one kernel instead of nine, with its parameters."""

    def __init__(self, gamma: nn.Parameter, beta: nn.Parameter) -> None:
        super().__init__()
        self.gamma, self.beta = gamma, beta

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.gamma, self.beta, eps=1e-8)


def _fuse_norms(network: nn.Module) -> None:
    from asteroid.masknn.norms import GlobLN

    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is GlobLN:
                setattr(parent, name, _GlobalNorm(child.gamma, child.beta))
