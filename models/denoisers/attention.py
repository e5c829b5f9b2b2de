"""Attention over grids of frequency and time, conditioned on an embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Conditioned(nn.Module):
    """A layer norm without weights of its own whose shift and scale, and gates, are made of a condition.

    Args:
        width: Channels.
        size: Features of the condition.
        parts: Vectors made of it: a shift and a scale, and what is given back.

    Source: W. Peebles and S. Xie, "Scalable Diffusion Models with Transformers", 2023.
    """

    def __init__(self, width: int, size: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.head = nn.Linear(size, parts * width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(b, f, t, c)`` and ``(b, size)`` to the normed tensor, and the vectors ``(b, 1, 1, c)`` left."""
        vectors = self.head(F.silu(condition))[:, None, None].chunk(self.parts, dim=-1)
        return modulated(x, vectors[0], vectors[1]), list(vectors[2:])


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm over the channels, then ``(1 + scale) x + shift``."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class Gated(nn.Module):
    """A 1x1 convolution whose halves are a value and its sigmoid gate, then, where there is one, another."""

    def __init__(self, width: int, hidden: int, out: int | None) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * hidden)
        self.out = None if out is None else nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., hidden)`` or ``(..., out)``."""
        found = F.glu(self.into(x), dim=-1)
        return found if self.out is None else self.out(found)


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
        """``(..., length, width)`` to the same shape."""
        q, k, v = rearrange(self.qkv(x), "... l (p h d) -> p (...) h l d", p=3, h=self.heads)
        found = F.scaled_dot_product_attention(rotated(q), rotated(k), v)
        out: Tensor = self.out(rearrange(found, "n h l d -> n l (h d)"))
        return out.reshape(x.shape)


class GridAttention(nn.Module):
    """Attention along the third axis of ``(b, y, x, c)`` behind a gated 1x1 projection, then an MLP."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.conditioned = Conditioned(width, size, parts=6)
        self.before = Gated(width, width, None)
        self.attention = Attention(width, heads)
        self.mlp = Gated(width, 2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(b, y, x, c)`` and ``(b, size)`` to the same shape."""
        normed, (gate, shift, scale, last_gate) = self.conditioned(x, condition)
        x = torch.addcmul(x, gate, self.attention(self.before(normed)))
        return torch.addcmul(x, last_gate, self.mlp(modulated(x, shift, scale)))


class GlobalTemporal(nn.Module):
    """Attention over time of whole frames: all bins of a frame in one vector; then the MLP of the grid.

    Neighbouring bins are folded into channels, reduced by a gated 1x1 convolution, and what is left of a
    frame is one vector; a convolution along frequency brings it back.

    Args:
        width: Channels.
        heads: Of the attention.
        size: Features of the condition.
        fold: Neighbouring bins that are taken together.
        bins: Bins that are left after folding.
        channels: Channels that each of them is reduced to.
    """

    def __init__(self, width: int, heads: int, size: int, fold: int, bins: int, channels: int) -> None:
        super().__init__()
        self.fold, self.bins = fold, bins
        self.conditioned = Conditioned(width, size, parts=6)
        self.before = Gated(fold * width, channels, None)
        self.attention = Attention(bins * channels, heads)
        self.after = nn.Conv2d(channels, fold * width, (3, 1), padding=(1, 0))
        self.mlp = Gated(width, 2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(b, f, t, c)`` and ``(b, size)`` to the same shape."""
        normed, (gate, shift, scale, last_gate) = self.conditioned(x, condition)
        reduced = self.before(rearrange(normed, "b (f n) t c -> b f t (n c)", n=self.fold))
        attended = self.attention(rearrange(reduced, "b f t c -> b t (f c)"))
        back = self.after(rearrange(attended, "b t (f c) -> b c f t", f=self.bins))
        x = torch.addcmul(x, gate, rearrange(back, "b (n c) f t -> b (f n) t c", n=self.fold))
        return torch.addcmul(x, last_gate, self.mlp(modulated(x, shift, scale)))


def rotated(x: Tensor) -> Tensor:
    """Pairs of features turned by their position times a frequency of their own: ``(n, head, length, d)``."""
    length, size = x.shape[-2:]
    frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size)
    angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * frequencies
    # a product of complex numbers is one pass over the memory, written out it is six
    pairs = torch.view_as_complex(rearrange(x.float(), "n h l (d p) -> n h l d p", p=2).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
