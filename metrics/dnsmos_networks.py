"""The networks of DNSMOS in torch, with the weights of the ONNX files that the package `speechmos` ships.

Nearly all the time of scoring overlapping windows would go into their spectra and the convolutions before the
first pooling. These are computed once for every frame of the clip, and again only for the frames at a
window's ends, which see its zero padding: a window scores as it does alone.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from encore.common.onnx_weights import read_weights
from encore.common.packages import packaged_file

WINDOW_FRAMES = 900
HOP = 160

# frames that go through the first convolutions at a time; larger blocks leave the processor's caches
_BLOCK = 256

# values, of 8 frames each, at each end of the primary network's last map that a window's zero padding can
# reach: three by the last three convolutions, and one to spare
_ENDS = 4

# Channels of the primary network's second convolution that are left out, as they never fire: on no signal of
# tests/test_metrics_dnsmos_networks.py does one come closer to zero than -0.05, and waveforms optimised to
# make them fire did so in 1 of 10^5 places, worth 1.3e-5 in a raw score. The 48 left suit processors.
_SILENT = (2, 4, 8, 21, 22, 29, 30, 31, 34, 40, 41, 42, 44, 46, 53, 56)
_SILENT_IN = 0x6CFBE54C
"""Check sum of the weights that this holds for; a network with others is computed as it is."""

Weights = dict[str, NDArray[np.float32]]


class ScoreNetwork(nn.Module):
    """Convolutions of 3 x 3, some followed by pooling of 2 x 2, the maximum over the map, then dense layers.

    Args:
        weights: Arrays by the names that the ONNX file gives them.
        pooled: Positions of the convolutions that pooling follows.
    """

    def __init__(self, weights: Weights, pooled: Sequence[int]) -> None:
        super().__init__()
        self.kernels = _in_order(weights, r"conv2d(_\d+)?/kernel:0")
        self.biases = _in_order(weights, r"conv2d(_\d+)?/bias:0")
        self.matrices = _in_order(weights, r".+/dense(_\d+)?/MatMul/.+")
        self.offsets = _in_order(weights, r".+/dense(_\d+)?/BiasAdd/.+")
        self.pooled = tuple(pooled)
        self.local_layers = self.pooled[0] + 1

    def leave_out(self, layer: int, channels: Sequence[int]) -> None:
        """Leave out some channels that a convolution gives to the next one."""
        kept = [channel for channel in range(len(self.biases[layer])) if channel not in channels]
        self.biases[layer] = _constant(self.biases[layer][kept])
        self.kernels[layer] = _constant(self.kernels[layer][kept])
        self.kernels[layer + 1] = _constant(self.kernels[layer + 1][:, kept])

    def local(self, features: Tensor, *, at_start: bool = True, at_end: bool = True) -> Tensor:
        """Apply the layers up to the first pooling to some frames ``(n, frame, band)`` of a window.

        Args:
            features: Also `local_layers` frames on each side as context, except at the window's ends.
            at_start: Whether the first frame is the window's first one.
            at_end: Whether the last frame is the window's last one.

        Returns:
            ``(n, frame / 2, band / 2, channel)``, without the context.
        """
        # with one channel, only these strides make torch keep the channels last
        maps = features.unsqueeze(-1).permute(0, 3, 1, 2)
        kept = slice(0 if at_start else 1, None if at_end else -1)
        for layer in range(self.local_layers):
            maps = self._convolve(maps, layer)[:, :, kept]
        return F.max_pool2d(maps, 2).permute(0, 2, 3, 1)

    def deep(self, maps: Tensor, first: int | None = None, last: int | None = None) -> Tensor:
        """Apply the convolutions from ``first`` (by default after `local`) up to ``last``, and their pooling.

        ``(n, frame, band, channel)`` to the same, with fewer frames and bands.
        """
        maps = maps.permute(0, 3, 1, 2)
        for layer in range(first or self.local_layers, last or len(self.kernels)):
            maps = self._convolve(maps, layer)
            if layer in self.pooled:
                maps = F.max_pool2d(maps, 2)
        return maps.permute(0, 2, 3, 1)

    def dense(self, hidden: Tensor) -> Tensor:
        """Return raw scores ``(n, score)`` from the maxima ``(n, channel)`` of `deep`'s maps."""
        for matrix, offset in zip(self.matrices[:-1], self.offsets[:-1], strict=True):
            hidden = (hidden @ matrix + offset).relu()
        return hidden @ self.matrices[-1] + self.offsets[-1]

    def score(self, maps: Tensor) -> Tensor:
        """Return raw scores ``(n, score)`` from `local`'s maps of whole windows."""
        return self.dense(self.deep(maps).amax((1, 2)))

    def _convolve(self, maps: Tensor, layer: int) -> Tensor:
        return F.conv2d(maps, self.kernels[layer], self.biases[layer], padding=1).relu_()


class PrimaryScorer(nn.Module):
    """Raw signal, background and overall scores, from the log-power spectra of frames of 320 samples."""

    def __init__(self) -> None:
        super().__init__()
        weights = _shipped_weights("sig_bak_ovr.onnx")
        self.network = ScoreNetwork(weights, pooled=(3, 4, 5))
        if crc32(self.network.kernels[1].numpy().tobytes()) == _SILENT_IN:
            self.network.leave_out(1, _SILENT)
        transform = [weights[f"time2freq/stft-{part}/kernel:0"][..., 0] for part in ("real", "imag")]
        self.transform = nn.Parameter(torch.from_numpy(np.concatenate(transform)), requires_grad=False)

    def forward(self, audio: Tensor, starts: Sequence[int], *, periodic: bool) -> Tensor:
        """Score windows of 144160 samples of a stream ``(clip, time)`` of 16000 Hz: ``(clip, window, 3)``.

        Args:
            audio: The stream.
            starts: First sample of each window, multiples of 640.
            periodic: Whether the first sample follows the last one; the length is then a multiple of 320.
        """
        features = self._log_power(torch.cat([audio, audio[:, :HOP]], dim=1) if periodic else audio)
        shared = self._local_of_stream(features, periodic=periodic)
        if features.shape[1] == WINDOW_FRAMES and not periodic:
            return self.network.score(shared).unsqueeze(1)
        first = torch.tensor(starts, device=audio.device) // HOP
        if periodic:
            unrolled = torch.arange((int(first.max()) + WINDOW_FRAMES) // 2, device=audio.device)
            shared = shared[:, unrolled % shared.shape[1]]
        inner = self._loudest_of_inner(shared, first)
        hidden = torch.maximum(inner, self._loudest_of_ends(features, shared, first))
        return self.network.dense(hidden).reshape(len(audio), len(starts), -1)

    def _loudest_of_inner(self, shared: Tensor, first: Tensor) -> Tensor:
        """Return maxima ``(clip * window, channel)`` of values that no zero padding reaches."""
        maps = self.network.deep(shared, 4, 5)
        # windows begin at even and at odd places of maps that are pooled once more
        pooled = [self.network.deep(maps[:, odd:], 5).amax(2) for odd in (0, 1)]
        inner = [
            pooled[place % 2][:, place // 2 + _ENDS : place // 2 + WINDOW_FRAMES // 8 - _ENDS].amax(1)
            for place in (first // 4).tolist()
        ]
        return torch.stack(inner, dim=1).flatten(0, 1)

    def _loudest_of_ends(self, features: Tensor, shared: Tensor, first: Tensor) -> Tensor:
        """Return maxima ``(clip * window, channel)`` of values that zero padding reaches."""
        reach, length = self.network.local_layers, features.shape[1]
        near = torch.arange(2 * reach, device=first.device)
        heads = features[:, (first[:, None] + near) % length].flatten(0, 1)
        tails = features[:, (first[:, None] + WINDOW_FRAMES - 2 * reach + near) % length].flatten(0, 1)
        heads = self.network.local(heads, at_end=False)
        tails = self.network.local(tails, at_start=False)
        half, whole, seen = first[:, None] // 2, WINDOW_FRAMES // 2, 4 * (_ENDS + 2)
        near_heads = shared[:, half + torch.arange(reach // 2, seen, device=first.device)].flatten(0, 1)
        near_tails = shared[
            :, half + torch.arange(whole // 4 * 4 - seen, whole - reach // 2, device=first.device)
        ].flatten(0, 1)
        heads = self.network.deep(torch.cat([heads, near_heads], dim=1))[:, :_ENDS]
        tails = self.network.deep(torch.cat([near_tails, tails], dim=1))[:, -_ENDS:]
        return torch.cat([heads, tails], dim=1).amax((1, 2))

    def _log_power(self, audio: Tensor) -> Tensor:
        """Return spectra ``(clip, frame, 161)``, one every 160 samples, an even number of frames."""
        spectrum = F.linear(audio.unfold(-1, 2 * HOP, HOP), self.transform)
        real, imaginary = spectrum[:, : spectrum.shape[1] // 2 * 2].chunk(2, dim=-1)
        return (real.square() + imaginary.square()).clamp(min=1e-12).log10()

    def _local_of_stream(self, features: Tensor, *, periodic: bool) -> Tensor:
        """Apply `ScoreNetwork.local` to a whole stream, padded with zeros unless it is periodic."""
        context, length = self.network.local_layers, features.shape[1]
        if periodic:
            features = torch.cat([features[:, -context:], features, features[:, :context]], dim=1)
        count = math.ceil(length / _BLOCK)
        bounds = [length // 2 * n // count * 2 for n in range(count + 1)]
        blocks = []
        for start, end in itertools.pairwise(bounds):
            at_start, at_end = (False, False) if periodic else (start == 0, end == length)
            seen = (start, end + 2 * context) if periodic else (max(0, start - context), end + context)
            blocks.append(self.network.local(features[:, slice(*seen)], at_start=at_start, at_end=at_end))
        return torch.cat(blocks, dim=1)


class P808Scorer(nn.Module):
    """Raw overall score, from the log-mel spectra of windows, each relative to its own loudest value."""

    n_fft = 321

    def __init__(self) -> None:
        super().__init__()
        self.network = ScoreNetwork(_shipped_weights("model_v8.onnx"), pooled=(0, 1, 3))
        self.mel = nn.Parameter(mel_filters(self.n_fft, 120), requires_grad=False)
        self.window = nn.Parameter(torch.hann_window(self.n_fft), requires_grad=False)

    def forward(self, audio: Tensor, starts: Sequence[int], *, periodic: bool) -> Tensor:
        """Score windows of a stream, as `PrimaryScorer` does: ``(clip, window, 1)``."""
        time = audio.shape[1]
        around = [audio[:, -HOP:], audio, audio[:, :1]]
        shared = self._decibels(torch.cat(around, dim=1) if periodic else F.pad(audio, (HOP, 1)))
        # the window's last HOP samples are left out, as published, and its ends padded with zeros
        near, end = torch.arange(2 * HOP, device=audio.device), WINDOW_FRAMES * HOP
        scores = []
        for start in starts:
            head = self._decibels(F.pad(audio[:, (start + near[: HOP + 1]) % time], (HOP, 0)))
            tail = self._decibels(F.pad(audio[:, (start + end - 2 * HOP + near) % time], (0, 1)))
            inner = torch.arange(start // HOP + 1, start // HOP + WINDOW_FRAMES - 1, device=audio.device)
            decibels = torch.cat([head, shared[:, inner % shared.shape[1]], tail], dim=1)
            loudest = decibels.amax((-2, -1), keepdim=True)
            features = ((decibels - loudest).clamp(min=-80) + 40) / 40
            scores.append(self.network.score(self.network.local(features)))
        return torch.stack(scores, dim=1)

    def _decibels(self, audio: Tensor) -> Tensor:
        """Return mel spectra ``(clip, frame, 120)`` of frames of 321 samples, one every 160."""
        spectrum = torch.fft.rfft(audio.unfold(-1, self.n_fft, HOP) * self.window)
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.mel
        return 10 * power.clamp(min=1e-10).log10()


Scorer = PrimaryScorer | P808Scorer


def mel_filters(n_fft: int, bands: int) -> Tensor:
    """Return librosa's mel filters up to 8000 Hz ``(n_fft // 2 + 1, bands)``, of audio of 16000 Hz."""
    # the last of melscale_fbanks' bins is at half the rate, where an odd n_fft has none: take twice the bins
    double = melscale_fbanks(n_fft + 1, 0.0, 8000.0, bands, 32000, norm="slaney", mel_scale="slaney")
    return double[: n_fft // 2 + 1].clone()


@lru_cache
def load_scorer(kind: type[Scorer], device: torch.device) -> Scorer:
    """Load a network, once for each process and device."""
    return kind().to(device)


def _shipped_weights(name: str) -> Weights:
    return read_weights(
        packaged_file(
            "speechmos", f"dnsmos_models/{name}", needed_by="DNSMOS", install="pip install speechmos"
        )
    )


def _in_order(weights: Weights, pattern: str) -> nn.ParameterList:
    """Return the arrays whose names match, ordered by the number in the name, none first."""
    matches = [match for name in weights if (match := re.fullmatch(pattern, name))]
    matches.sort(key=lambda match: int((match[1] or "_0")[1:]))
    return nn.ParameterList(_constant(torch.from_numpy(weights[match[0]])) for match in matches)


def _constant(weight: Tensor) -> nn.Parameter:
    # convolutions of this shape run about 1.5 times as fast with the channels last
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(weight, requires_grad=False)
