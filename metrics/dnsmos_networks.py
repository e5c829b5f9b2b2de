"""The networks of DNSMOS in torch, with the weights of the ONNX files that the package `speechmos` ships.

A clip is scored in overlapping windows, and nearly all the time would go into the spectra and the first
convolutions of each window, those before anything is pooled. Here they are computed once for every frame of
the clip, and again only for the few frames at a window's ends, which see the window's zero padding: a
window's score is what it is alone.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from zlib import crc32

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from encore.metrics.onnx_weights import read_weights

WINDOW_FRAMES = 900
HOP = 160

# frames that go through the first convolutions at a time; larger blocks leave the processor's caches
_BLOCK = 256

# Values at each end of the primary network's last map that the zero padding of a window can reach. A value is
# one of 8 frames; three do so by way of the last three convolutions, one more is spared.
_ENDS = 4

# Channels of the primary network's second convolution that are left out, as they never fire: on no signal of
# tests/test_metrics_dnsmos_networks.py does one come closer to zero than -0.05, and waveforms optimised by
# gradient ascent to make them fire did so in 1 of 10^5 places, worth 1.3e-5 in a raw score. Seven more are as
# silent, but closest to firing; without them the number of channels would suit the processor's vectors less.
_SILENT = (2, 4, 8, 21, 22, 29, 30, 31, 34, 40, 41, 42, 44, 46, 53, 56)
_SILENT_IN = 0x6CFBE54C
"""Check sum of the weights that this was found out for; a network with others is computed as it is."""

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
        """Apply what comes before and with the first pooling, to some frames of a window.

        `local_layers` frames on each side of a frame matter to it. At the ends of the window there are none;
        elsewhere so many of the frames given have no result of their own.

        Args:
            features: ``(n, frame, band)``.
            at_start: Whether the first frame is the window's first one.
            at_end: Whether the last frame is the window's last one.

        Returns:
            ``(n, frame / 2, band / 2, channel)``, of the frames that have a result.
        """
        # with one channel, only these strides make torch keep the channels last
        maps = features.unsqueeze(-1).permute(0, 3, 1, 2)
        kept = slice(0 if at_start else 1, None if at_end else -1)
        for layer in range(self.local_layers):
            maps = self._convolve(maps, layer)[:, :, kept]
        return F.max_pool2d(maps, 2).permute(0, 2, 3, 1)

    def deep(self, maps: Tensor, first: int | None = None, last: int | None = None) -> Tensor:
        """Apply convolutions after the first pooling, with what pooling follows them.

        Args:
            maps: ``(n, frame, band, channel)``, for the first layer `local`'s.
            first: The first convolution; the one after `local` by default.
            last: The first one that is left out; none by default.

        Returns:
            ``(n, frame, band, channel)``, fewer frames and bands where it pools.
        """
        maps = maps.permute(0, 3, 1, 2)
        for layer in range(first or self.local_layers, last or len(self.kernels)):
            maps = self._convolve(maps, layer)
            if layer in self.pooled:
                maps = F.max_pool2d(maps, 2)
        return maps.permute(0, 2, 3, 1)

    def dense(self, hidden: Tensor) -> Tensor:
        """Raw scores ``(n, score)`` from the maxima ``(n, channel)`` of `deep`'s maps over the window."""
        for matrix, offset in zip(self.matrices[:-1], self.offsets[:-1], strict=True):
            hidden = (hidden @ matrix + offset).relu()
        return hidden @ self.matrices[-1] + self.offsets[-1]

    def score(self, maps: Tensor) -> Tensor:
        """Apply all the rest to `local`'s maps of whole windows: ``(n, score)``, raw."""
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
        """Score windows of 144160 samples of a stream.

        Args:
            audio: ``(clip, time)``, 16000 Hz.
            starts: First sample of each window, multiples of 640.
            periodic: Whether the last sample is followed by the first one again; the length is then a
                multiple of 320, and windows may reach beyond it.

        Returns:
            ``(clip, window, 3)``.
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
        """Maxima ``(clip * window, channel)`` over what the window's zero padding does not reach."""
        maps = self.network.deep(shared, 4, 5)
        # windows begin at even and at odd places of maps that are pooled once more
        pooled = [self.network.deep(maps[:, odd:], 5).amax(2) for odd in (0, 1)]
        inner = [
            pooled[place % 2][:, place // 2 + _ENDS : place // 2 + WINDOW_FRAMES // 8 - _ENDS].amax(1)
            for place in (first // 4).tolist()
        ]
        return torch.stack(inner, dim=1).flatten(0, 1)

    def _loudest_of_ends(self, features: Tensor, shared: Tensor, first: Tensor) -> Tensor:
        """Maxima ``(clip * window, channel)`` over what the window's zero padding reaches."""
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
        """``(clip, time)`` to an even number of frames, one every 160 samples: ``(clip, frame, 161)``."""
        spectrum = F.linear(audio.unfold(-1, 2 * HOP, HOP), self.transform)
        real, imaginary = spectrum[:, : spectrum.shape[1] // 2 * 2].chunk(2, dim=-1)
        return (real.square() + imaginary.square()).clamp(min=1e-12).log10()

    def _local_of_stream(self, features: Tensor, *, periodic: bool) -> Tensor:
        """Apply the first layers to ``(clip, frame, band)``: ``(clip, frame / 2, band / 2, channel)``.

        A stream that is not periodic is padded with zeros, as a window is.
        """
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
        mel = librosa.filters.mel(sr=16000, n_fft=self.n_fft, n_mels=120)
        self.mel = nn.Parameter(torch.from_numpy(mel), requires_grad=False)
        self.window = nn.Parameter(torch.hann_window(self.n_fft), requires_grad=False)

    def forward(self, audio: Tensor, starts: Sequence[int], *, periodic: bool) -> Tensor:
        """Score windows of 144160 samples of a stream; arguments as for `PrimaryScorer`.

        Returns:
            ``(clip, window, 1)``.
        """
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
        """``(clip, time)`` to mel spectra of frames of 321 samples, one every 160: ``(clip, frame, 120)``."""
        spectrum = torch.fft.rfft(audio.unfold(-1, self.n_fft, HOP) * self.window)
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.mel.T
        return 10 * power.clamp(min=1e-10).log10()


@lru_cache
def primary_scorer(device: torch.device) -> PrimaryScorer:
    """Load the primary network, once for each process and device."""
    return PrimaryScorer().to(device)


@lru_cache
def p808_scorer(device: torch.device) -> P808Scorer:
    """Load the P.808 network, once for each process and device."""
    return P808Scorer().to(device)


def _shipped_weights(name: str) -> Weights:
    with as_file(files("speechmos") / "dnsmos_models" / name) as path:
        return read_weights(path)


def _in_order(weights: Weights, pattern: str) -> nn.ParameterList:
    """Return the arrays whose names match, ordered by the number in the name; one without comes first."""
    matches = [match for name in weights if (match := re.fullmatch(pattern, name))]
    matches.sort(key=lambda match: int((match[1] or "_0")[1:]))
    return nn.ParameterList(_constant(torch.from_numpy(weights[match[0]])) for match in matches)


def _constant(weight: Tensor) -> nn.Parameter:
    # convolutions of this shape run about 1.5 times as fast with the channels last
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(weight, requires_grad=False)
