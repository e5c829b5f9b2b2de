"""The networks of DNSMOS in torch, with the weights of the ONNX files that the package `speechmos` ships.

A clip is scored in overlapping windows, and nearly all the time would go into the first convolutions of each
window, those before anything is pooled. Here they are computed once for every frame of the clip, and again
only for the few frames at a window's ends, which see the window's zero padding: a window's score is what it
is alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from metrics.onnx_weights import read_weights

WINDOW_FRAMES = 900
HOP = 160

# frames that go through the first convolutions at a time; larger blocks leave the processor's caches
_BLOCK = 256

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

    def local(self, features: Tensor) -> Tensor:
        """Apply what comes before and with the first pooling.

        Args:
            features: ``(n, frame, band)``, an even number of frames.

        Returns:
            ``(n, frame / 2, band / 2, channel)``; `local_layers` frames on each side of a frame matter to it.
        """
        # with one channel, only these strides make torch keep the channels last
        maps = features.unsqueeze(-1).permute(0, 3, 1, 2)
        return self._convolve(maps, range(self.local_layers)).permute(0, 2, 3, 1)

    def score(self, maps: Tensor) -> Tensor:
        """Apply all the rest to `local`'s maps of whole windows: ``(n, score)``, raw."""
        maps = self._convolve(maps.permute(0, 3, 1, 2), range(self.local_layers, len(self.kernels)))
        hidden = maps.amax((-2, -1))
        for matrix, offset in zip(self.matrices[:-1], self.offsets[:-1], strict=True):
            hidden = (hidden @ matrix + offset).relu()
        return hidden @ self.matrices[-1] + self.offsets[-1]

    def _convolve(self, maps: Tensor, layers: range) -> Tensor:
        for layer in layers:
            maps = F.conv2d(maps, self.kernels[layer], self.biases[layer], padding=1).relu_()
            if layer in self.pooled:
                maps = F.max_pool2d(maps, 2)
        return maps


class PrimaryScorer(nn.Module):
    """Raw signal, background and overall scores, from the log-power spectra of frames of 320 samples."""

    def __init__(self) -> None:
        super().__init__()
        weights = _shipped_weights("sig_bak_ovr.onnx")
        self.network = ScoreNetwork(weights, pooled=(3, 4, 5))
        transform = [weights[f"time2freq/stft-{part}/kernel:0"][..., 0] for part in ("real", "imag")]
        self.transform = nn.Parameter(torch.from_numpy(np.concatenate(transform)), requires_grad=False)

    def forward(self, audio: Tensor, starts: Sequence[int], *, periodic: bool) -> Tensor:
        """Score windows of 144160 samples of a stream.

        Args:
            audio: ``(clip, time)``, 16000 Hz.
            starts: First sample of each window, multiples of 320.
            periodic: Whether the last sample is followed by the first one again; the length is then a
                multiple of 320, and windows may reach beyond it.

        Returns:
            ``(clip, window, 3)``.
        """
        features = self._log_power(torch.cat([audio, audio[:, :HOP]], dim=1) if periodic else audio)
        shared = self._local_of_stream(features, periodic=periodic)
        first = torch.tensor(starts, device=audio.device)[:, None] // HOP
        # frames at a window's ends that see its zero padding, and frames enough to compute them from
        kept, seen = self.network.local_layers, 2 * self.network.local_layers
        head = (first + torch.arange(seen, device=audio.device)) % features.shape[1]
        tail = (
            first + torch.arange(WINDOW_FRAMES - seen, WINDOW_FRAMES, device=audio.device)
        ) % features.shape[1]
        ends = features[:, torch.stack([head, tail])]
        heads, tails = torch.unflatten(self.network.local(ends.flatten(0, 2)), 0, ends.shape[:3]).unbind(1)
        inner = torch.arange(kept // 2, (WINDOW_FRAMES - kept) // 2, device=audio.device)
        scores = []
        for window in range(len(starts)):
            maps = shared[:, (first[window] // 2 + inner) % shared.shape[1]]
            whole = [heads[:, window, : kept // 2], maps, tails[:, window, -kept // 2 :]]
            scores.append(self.network.score(torch.cat(whole, dim=1)))
        return torch.stack(scores, dim=1)

    def _log_power(self, audio: Tensor) -> Tensor:
        """``(clip, time)`` to an even number of frames, one every 160 samples: ``(clip, frame, 161)``."""
        spectrum = F.linear(audio.unfold(-1, 2 * HOP, HOP), self.transform)
        real, imaginary = spectrum[:, : spectrum.shape[1] // 2 * 2].chunk(2, dim=-1)
        return (real.square() + imaginary.square()).clamp(min=1e-12).log10()

    def _local_of_stream(self, features: Tensor, *, periodic: bool) -> Tensor:
        """Apply the first layers to ``(clip, frame, band)``: ``(clip, frame / 2, band / 2, channel)``.

        The ends of a stream that is not periodic get values that no window uses.
        """
        context, length = self.network.local_layers, features.shape[1]
        around = torch.arange(-context, length + context, device=features.device)
        around = around % length if periodic else around.clamp(0, length - 1)
        blocks = [
            self.network.local(features[:, around[start : start + _BLOCK + 2 * context]])
            for start in range(0, length, _BLOCK)
        ]
        return torch.cat([block[:, context // 2 : -context // 2] for block in blocks], dim=1)


class P808Scorer(nn.Module):
    """Raw overall score, from the log-mel spectra of windows, each relative to its own loudest value."""

    n_fft = 321

    def __init__(self) -> None:
        super().__init__()
        self.network = ScoreNetwork(_shipped_weights("model_v8.onnx"), pooled=(0, 1, 3))
        mel = librosa.filters.mel(sr=16000, n_fft=self.n_fft, n_mels=120)
        self.mel = nn.Parameter(torch.from_numpy(mel), requires_grad=False)
        self.window = nn.Parameter(torch.hann_window(self.n_fft), requires_grad=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Score windows ``(n, 144160)`` at 16000 Hz: ``(n, 1)``."""
        spectrum = torch.stft(
            windows[:, :-HOP], self.n_fft, HOP, window=self.window, pad_mode="constant", return_complex=True
        )
        power = self.mel @ spectrum.abs().square()
        decibels = 10 * power.clamp(min=1e-10).log10()
        loudest = decibels.amax((-2, -1), keepdim=True)
        decibels = (decibels - loudest).clamp(min=-80)
        features = ((decibels + 40) / 40).transpose(1, 2).contiguous()
        return self.network.score(self.network.local(features))


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
    tensors = [torch.from_numpy(weights[match[0]]) for match in matches]
    # convolutions of this shape run about 1.5 times as fast with the channels last
    tensors = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
    return nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors)
