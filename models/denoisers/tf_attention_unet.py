"""The network of diffusion priors: a U-Net on spectra with attention along frequency and along time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from encore.common.dsp import istft, stft
from encore.models.denoisers.attention import AdaptiveNorm, GlobalTemporal, GridAttention
from encore.models.denoisers.time_embedding import LevelEmbedding
from encore.models.separators.spectral import as_complex, run_layer


class TFAttentionUNet(nn.Module):
    """Estimate the noise in a waveform, conditioned on its level and, where there are classes, on the class.

    A sqrt-Hann STFT, its real and imaginary part as two channels, then a U-Net whose stages are blocks of
    attention along frequency and attention along time, in the latent stage each after one of whole frames.
    Resampling is by pixel shuffles; skips are joined by a 1x1 convolution. Shift, scale and gate of every
    layer are projections of the level's embedding, one embedding a stage.

    Spectra are padded to whole pixels and cut back, so any length is possible. Transforms and their scaling
    are in float32, also under autocast.

    Args:
        classes: Number of classes of sources, or their names; 0 without. One more embedding stands for "any
            class".
        widths: Channels of the stages; they double to the middle and mirror after it.
        depths: Blocks of the stages.
        window: Length of the window in samples, even; the hop is its half.
        heads: Heads of every attention.
        fold: Neighbouring bins that the attention of whole frames folds together.
        frame_channels: Channels that it reduces them to.
        embedding: Features of the level's sinusoids; half of them after two layers.
        zero_init: Whether every block starts as the identity, and the output at 0.
        checkpointing: Whether blocks keep their inputs only and recompute activations for a gradient: half
            more time for a fraction of the memory. May be changed at any time.

    Raises:
        ValueError: If sizes do not match.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025;
    W. Peebles and S. Xie, "Scalable Diffusion Models with Transformers", 2023 (adaLN-zero); docs/methods.md.
    """

    compilable = ("_predict",)

    def __init__(
        self,
        classes: int | Sequence[str] = 0,
        widths: Sequence[int] = (72, 144, 288, 144, 72),
        depths: Sequence[int] = (2, 4, 8, 4, 2),
        window: int = 510,
        heads: int = 4,
        fold: int = 4,
        frame_channels: int = 16,
        embedding: int = 256,
        zero_init: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_stages(widths, depths)
        wide, middle = tuple(widths), len(widths) // 2
        self.multiple = 2**middle
        bins = window // 2 + 1
        if window % 2 or bins % (self.multiple * fold):
            raise ValueError(
                f"window={window}: its {bins} bins must be a multiple of {self.multiple * fold}, "
                f"such as {2 * max(1, round(bins / self.multiple / fold)) * self.multiple * fold - 2}"
            )
        self.checkpointing = checkpointing
        count = classes if isinstance(classes, int) else len(classes)
        if count < 0:
            raise ValueError(f"classes={classes}: give 0 or more")
        self.classes, self.window_length, self.hop = count, int(window), window // 2
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window).sqrt(), persistent=False)

        frame_bins = bins // self.multiple // fold
        size = embedding // 2
        self.embeddings = nn.ModuleList(LevelEmbedding(embedding, size, count) for _ in range(len(wide) + 1))
        self.enter = nn.Conv2d(2, wide[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                _Block(width, heads, size, (fold, frame_bins, frame_channels) if index == middle else None)
                for _ in range(depth)
            )
            for index, (width, depth) in enumerate(zip(wide, depths, strict=True))
        )
        self.down = nn.ModuleList(nn.Conv2d(width, width // 2, 3, padding=1) for width in wide[:middle])
        self.up = nn.ModuleList(nn.Conv2d(width, 2 * width, 3, padding=1) for width in wide[middle:-1])
        self.join = nn.ModuleList(nn.Linear(2 * width, width) for width in wide[middle + 1 :])
        self.leave = nn.Conv2d(wide[-1], wide[-1], 3, padding=1)
        self.norm = AdaptiveNorm(wide[-1], size, parts=2)
        self.out = nn.Conv2d(wide[-1], 2, 3, padding=1)
        if zero_init:
            self._start_as_identity()

    def forward(self, waveform: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the noise.

        Args:
            waveform: ``(b, 1, time)``.
            level: ``(b,)``, a number that stands for the noise level.
            labels: ``(b,)`` integers, classes from 0 up, or ``classes`` for any; None for any.

        Returns:
            ``(b, 1, time)``.

        Raises:
            ValueError: If the shape is wrong, or a label is out of range.
        """
        if waveform.ndim != 3 or waveform.shape[1] != 1:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}: give (batch, 1, time)")
        batch = len(waveform)
        if labels is not None and (
            labels.shape != (batch,) or bool(((labels < 0) | (labels > self.classes)).any())
        ):
            raise ValueError(f"labels={labels.tolist()}: give {batch}, each from 0 to {self.classes}")
        noise = self._predict(self._analyze(waveform), level, labels)
        return self._synthesize(noise, waveform.shape[-1]).to(waveform.dtype)

    def _predict(self, x: Tensor, level: Tensor, labels: Tensor | None) -> Tensor:
        """Map spectra ``(b, f, frame, 2)`` to the same shape."""
        frames = x.shape[2]
        x = F.pad(x, (0, 0, 0, -frames % self.multiple))
        conditions = [embedding(level, labels) for embedding in self.embeddings]
        x = _convolve(self.enter, x)
        middle = len(self.down)
        skips: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            if index > middle:
                x = _shuffle(F.pixel_shuffle, _convolve(self.up[index - middle - 1], x))
                x = self.join[index - middle - 1](torch.cat((x, skips.pop()), dim=-1))
            for block in stage:  # type: ignore[attr-defined]
                x = run_layer(block, x, conditions[index], checkpointing=self.checkpointing)
            if index < middle:
                skips.append(x)
                x = _shuffle(F.pixel_unshuffle, _convolve(self.down[index], x))
        x, _ = self.norm(_convolve(self.leave, x), conditions[-1])
        return _convolve(self.out, x)[:, :, :frames]

    def _analyze(self, waveform: Tensor) -> Tensor:
        """Transform ``(b, 1, time)`` to ``(b, f, frame, 2)``; white noise keeps its unit variance."""
        with torch.autocast(waveform.device.type, enabled=False):
            time = waveform.shape[-1]
            # mirrored, as the transform does at both ends, where there is enough to mirror
            mode = "reflect" if time >= 2 * self.hop else "constant"
            padded = F.pad(waveform[:, 0].float(), (0, self._length(time) - time), mode=mode)
            # the squared window sums to its hop, and half the power of a bin is in each part
            return torch.view_as_real(stft(padded, self.window, self.hop)) * (2 / self.hop) ** 0.5

    def _synthesize(self, channels: Tensor, time: int) -> Tensor:
        """Invert `_analyze`: ``(b, f, frame, 2)`` to ``(b, 1, time)``."""
        with torch.autocast(channels.device.type, enabled=False):
            spectrum = as_complex(channels) * (self.hop / 2) ** 0.5
            return istft(spectrum, self.window, self._length(time), self.hop)[:, None, :time]

    def _length(self, time: int) -> int:
        """Return the samples to transform: whole hops, two or more, which reflection needs.

        Else only the tail of one window would cover the last samples, and inversion would divide the
        network's output there by nearly 0.
        """
        return self.hop * max(2, -(-time // self.hop))

    def _start_as_identity(self) -> None:
        """Zero the projections of the conditions, and the last layer."""
        layers: list[nn.Linear | nn.Conv2d] = [self.out]
        layers += [module.head for module in self.modules() if isinstance(module, AdaptiveNorm)]
        for layer in layers:
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _check_stages(widths: Sequence[int], depths: Sequence[int]) -> None:
    down = list(widths[: len(widths) // 2 + 1])
    doubling = all(after == 2 * before for before, after in pairwise(down))
    mirrored = list(widths) == [*down, *down[-2::-1]]
    if len(depths) != len(widths) or not (doubling and mirrored):
        raise ValueError(
            f"widths={tuple(widths)}, depths={tuple(depths)}: give an odd number of widths that double to "
            "the middle and mirror after it, such as 72, 144, 288, 144, 72, and as many depths"
        )
    if min(depths) < 1:
        raise ValueError(f"depths={tuple(depths)}: give 1 or more blocks for each stage")


class _Block(nn.Module):
    """Attention of whole frames (optional), along frequency, along time, of ``(b, f, frame, c)``."""

    def __init__(self, width: int, heads: int, size: int, frames: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.frames = None if frames is None else GlobalTemporal(width, heads, size, *frames)
        self.along_frequency = GridAttention(width, heads, size)
        self.along_time = GridAttention(width, heads, size)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if self.frames is not None:
            x = self.frames(x, condition)
        x = self.along_frequency(x.transpose(1, 2), condition).transpose(1, 2)
        out: Tensor = self.along_time(x, condition)
        return out


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Convolve ``(b, f, frame, c)``, whose memory is that of torch's channels-last format."""
    return rearrange(layer(rearrange(x, "b f t c -> b c f t")), "b c f t -> b f t c")


def _shuffle(shuffle: object, x: Tensor) -> Tensor:
    """(Un)shuffle the pixels of ``(b, f, frame, c)`` by two."""
    assert callable(shuffle)
    return rearrange(shuffle(rearrange(x, "b f t c -> b c f t"), 2), "b c f t -> b f t c")
