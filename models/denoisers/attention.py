"""Attention over grids of frequency and time, conditioned on an embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class AdaptiveNorm(nn.Module):
    """A layer norm whose shift and scale, and further vectors such as gates, are projections of a condition.

    Args:
        width: Channels.
        size: Features of the condition.
        parts: Vectors projected from it: shift, scale, and those that are returned.

    Source: W. Peebles and S. Xie, "Scalable Diffusion Models with Transformers", 2023.
    """

    def __init__(self, width: int, size: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.head = nn.Linear(size, parts * width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Normalize ``(b, f, t, c)`` by ``(b, size)``; return that and the other vectors ``(b, 1, 1, c)``."""
        vectors = self.head(F.silu(condition))[:, None, None].chunk(self.parts, dim=-1)
        return modulate(x, vectors[0], vectors[1]), list(vectors[2:])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply a layer norm over the channels, then ``(1 + scale) x + shift``."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class GatedLinear(nn.Module):
    """A linear layer whose halves are a value and its sigmoid gate, then, unless ``out`` is None, another."""

    def __init__(self, width: int, hidden: int, out: int | None) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * hidden)
        self.out = None if out is None else nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to ``(..., hidden)`` or ``(..., out)``."""
        gated = F.glu(self.into(x), dim=-1)
        return gated if self.out is None else self.out(gated)


class Attention(nn.Module):
    """Self-attention over the last but one axis, with rotary positions.

    Source: J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"heads={heads}: {width} channels must be a multiple of {2 * heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., length, width)`` to the same shape."""
        q, k, v = rearrange(self.qkv(x), "... l (p h d) -> p (...) h l d", p=3, h=self.heads)
        attended = F.scaled_dot_product_attention(rotate(q), rotate(k), v)
        out: Tensor = self.out(rearrange(attended, "n h l d -> n l (h d)"))
        return out.reshape(x.shape)


class GridAttention(nn.Module):
    """Attention along the third axis of ``(b, y, x, c)`` after a gated 1x1 projection, then an MLP."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.conditioned = AdaptiveNorm(width, size, parts=6)
        self.before = GatedLinear(width, width, None)
        self.attention = Attention(width, heads)
        self.mlp = GatedLinear(width, 2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map ``(b, y, x, c)``, conditioned on ``(b, size)``, to the same shape."""
        normed, (gate, shift, scale, last_gate) = self.conditioned(x, condition)
        x = torch.addcmul(x, gate, self.attention(self.before(normed)))
        return torch.addcmul(x, last_gate, self.mlp(modulate(x, shift, scale)))


class GlobalTemporal(nn.Module):
    """Attention over time between whole frames, each frame's bins in one vector; then the MLP of the grid.

    Neighbouring bins are folded into channels, which a gated 1x1 convolution reduces; the result of a frame
    is one vector. A convolution along frequency restores the shape.

    Args:
        width: Channels.
        heads: Heads of the attention.
        size: Features of the condition.
        fold: Neighbouring bins that are folded together.
        bins: Bins after folding.
        channels: Channels that each of them is reduced to.
    """

    def __init__(self, width: int, heads: int, size: int, fold: int, bins: int, channels: int) -> None:
        super().__init__()
        self.fold, self.bins = fold, bins
        self.conditioned = AdaptiveNorm(width, size, parts=6)
        self.before = GatedLinear(fold * width, channels, None)
        self.attention = Attention(bins * channels, heads)
        self.after = nn.Conv2d(channels, fold * width, (3, 1), padding=(1, 0))
        self.mlp = GatedLinear(width, 2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map ``(b, f, t, c)``, conditioned on ``(b, size)``, to the same shape."""
        normed, (gate, shift, scale, last_gate) = self.conditioned(x, condition)
        reduced = self.before(rearrange(normed, "b (f n) t c -> b f t (n c)", n=self.fold))
        attended = self.attention(rearrange(reduced, "b f t c -> b t (f c)"))
        back = self.after(rearrange(attended, "b t (f c) -> b c f t", f=self.bins))
        x = torch.addcmul(x, gate, rearrange(back, "b (n c) f t -> b (f n) t c", n=self.fold))
        return torch.addcmul(x, last_gate, self.mlp(modulate(x, shift, scale)))


def rotate(x: Tensor) -> Tensor:
    """Rotate pairs of features of ``(n, head, length, d)`` by their position times a frequency per pair."""
    length, size = x.shape[-2:]
    frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size)
    angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * frequencies
    # a product of complex numbers is one pass over the memory, written out it is six
    pairs = torch.view_as_complex(rearrange(x.float(), "n h l (d p) -> n h l d p", p=2).contiguous())
    rotated = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)
