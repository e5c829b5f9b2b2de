"""Asteroid's waveform separators behind this project's contract: any length in, the same length out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.names import similar
from encore.common.packages import require
from encore.models.separators.contract import SeparatorNetwork

ARCHITECTURES = ("ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet")
"""The classes of ``asteroid.models`` that map waveforms to waveforms and build on today's torch."""

INSTALL = "pip install asteroid-filterbanks huggingface-hub && pip install --no-deps asteroid==0.7.0"
"""What installs asteroid beside this project: it declares torchmetrics<=0.11.4 but imports none of it."""

_PAD_THEMSELVES = frozenset({"SuDORMRFImprovedNet", "SuDORMRFNet"})
_SET_BY_THE_ADAPTER = {"n_src": "sources", "sample_rate": "sample_rate"}


class AsteroidSeparator(SeparatorNetwork):
    """One of asteroid's networks as a separator.

    Three things are added to the network:

    - *Length.* An encoder without padding needs one whole kernel, and leaves the samples after its last
      whole frame silent. The mixture is padded with zeros at its end up to the next whole frame, and the
      estimates are cut back, so every length from one sample up comes out as it went in, and lengths that
      are whole frames already give what the bare network gives.
    - *Channels.* Each channel is separated by itself (channels are folded into the batch), with the same
      weights; the networks see one channel only.
    - *Level.* Nothing is normalised, before or after.

    A network built here computes asteroid's global layer norm by torch's own kernel: the same numbers up to
    rounding, under the same parameter names, in less time (docs/results.md).

    Args:
        architecture: Name of a class in ``asteroid.models``, one of `ARCHITECTURES`; or a network
            already built that maps ``(batch, 1, time)`` to ``(batch, source, time)``.
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
        architecture: str | nn.Module,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        if isinstance(architecture, nn.Module):
            if options:
                raise ValueError(
                    f"options={dict(options)!r}: a network already built takes none, leave it out"
                )
            self.network = architecture
        else:
            self.network = _build(architecture, len(self.sources), self.sample_rate, dict(options or {}))

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        length = mixture.shape[-1]
        single = rearrange(mixture, "b c t -> (b c) 1 t")
        single = F.pad(single, (0, self._whole_frames(length) - length))
        estimates: Tensor = self.network(single)[..., :length]
        if estimates.shape[1] != len(self.sources):
            raise ValueError(
                f"sources={self.sources!r} names {len(self.sources)}, but the network "
                f"estimates {estimates.shape[1]}: give one name for each"
            )
        # under autocast the decoder gives bfloat16, too coarse to take a loss or a score of
        return rearrange(estimates.to(mixture.dtype), "(b c) s t -> b s c t", c=self.channels)

    def _whole_frames(self, length: int) -> int:
        """Samples of the shortest whole number of encoder frames that holds ``length`` samples."""
        filterbank = getattr(getattr(self.network, "encoder", None), "filterbank", None)
        if filterbank is None or type(self.network).__name__ in _PAD_THEMSELVES:
            return length
        kernel, stride = int(filterbank.kernel_size), int(filterbank.stride)
        beyond = length - kernel
        # TorchScript's tracer, which gives tensors, would decide a comparison for all lengths
        beyond = (beyond + abs(beyond)) // 2 if isinstance(beyond, Tensor) else max(beyond, 0)
        # rounded up; no negative number is divided, as ONNX would round that towards zero
        return kernel + (beyond + stride - 1) // stride * stride


def _build(architecture: str, number_of_sources: int, sample_rate: int, options: dict[str, Any]) -> nn.Module:
    """Build a network by name, after the checks that asteroid lacks: it ignores unknown keywords."""
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture={architecture!r} is unknown: {_did_you_mean(architecture, ARCHITECTURES)}"
        )
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
            raise ValueError(f"options.{name} is unknown to {architecture}: {_did_you_mean(name, allowed)}")
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


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = similar(str(name), known)
    listed = ", ".join(known)
    return f"did you mean {' or '.join(near)}? Known: {listed}" if near else f"known: {listed}"
