"""Training losses: lower is better, one value per item, finite for silence.

A *source loss* maps ``(b, c, t)`` estimates and references of one source to ``(b,)``; `FixedOrder` and
`PermutationInvariant` lift it to ``(b, s, c, t)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from encore.common.dsp import stft
from encore.inference.permutation import best_assignment

SourceLoss = Callable[[Tensor, Tensor], Tensor]


def negative_si_sdr(estimate: Tensor, reference: Tensor, eps: float = 1e-8) -> Tensor:
    """Negative scale-invariant SDR in dB, mean over channels, without mean removal.

    Args:
        estimate: ``(b, c, t)``.
        reference: Same shape.
        eps: Keeps silence finite, both as estimate and as reference.

    Returns:
        ``(b,)``.

    Source: J. Le Roux et al., "SDR - half-baked or well done?", 2019, eq. (3).
    """
    energy = reference.square().sum(-1, keepdim=True)
    target = (estimate * reference).sum(-1, keepdim=True) / (energy + eps) * reference
    return negative_snr(estimate, target, eps)


def negative_snr(
    estimate: Tensor, reference: Tensor, eps: float = 1e-8, max_db: float | None = None
) -> Tensor:
    """Negative signal-to-noise ratio in dB, mean over channels; arguments as `negative_si_sdr`.

    Args:
        estimate: ``(b, c, t)``.
        reference: Same shape.
        eps: Keeps silence finite.
        max_db: Soft ceiling: an estimate this good counts half, so that near-clean items, of which path
            mixing makes many, do not outweigh the noisy ones. None for none.

    Source of the ceiling: S. Wisdom et al., "Unsupervised Sound Separation Using Mixture Invariant Training",
    2020, eq. (2).
    """
    signal = reference.square().sum(-1)
    noise = (estimate - reference).square().sum(-1)
    floor = 0.0 if max_db is None else 10 ** (-max_db / 10) * signal
    return -10 * torch.log10((signal + eps) / (noise + floor + eps)).mean(-1)


class WeightedSum:
    """Several source losses as one.

    Args:
        losses: Source losses by any key; the key lets a config override one of them.
        weights: A weight for each key.
    """

    def __init__(self, losses: Mapping[str, SourceLoss], weights: Mapping[str, float]) -> None:
        if set(losses) != set(weights):
            raise ValueError(f"weights={sorted(weights)} must name the losses {sorted(losses)}")
        self.losses, self.weights = dict(losses), dict(weights)

    def __call__(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        parts = [self.weights[name] * loss(estimate, reference) for name, loss in self.losses.items()]
        return torch.stack(parts).sum(0)


class SpectralL1:
    """L1 in time plus L1 of square-root magnitudes at several resolutions, relative to the reference's level.

    Args:
        sample_rate: In Hz.
        window_seconds: Analysis windows, one per resolution; the hop is a quarter of each.
        spectral_weight: Weight of the mean over the resolutions, beside the time-domain term's 1.
        missing_weight: Weight of magnitudes below the reference's (source removed), where those above it
            (noise left) have 1.
        level_floor: Reference levels (RMS) below this one count as this one, so that silence stays finite.
        eps: Added to the power before the root: the gradient of a bare root is infinite at silence.
    """

    def __init__(
        self,
        sample_rate: int,
        window_seconds: Sequence[float] = (0.016, 0.032, 0.064),
        spectral_weight: float = 1.0,
        missing_weight: float = 1.0,
        level_floor: float = 0.01,
        eps: float = 1e-6,
    ) -> None:
        self.windows = [_window(seconds, sample_rate) for seconds in window_seconds]
        self.spectral_weight, self.missing_weight = spectral_weight, missing_weight
        self.level_floor, self.eps = level_floor, eps

    def __call__(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        # clamped before the root: its gradient is infinite at silence
        level = reference.square().mean(dim=(1, 2), keepdim=True).clamp_min(self.level_floor**2).sqrt()
        estimate, reference = estimate / level, reference / level
        time = (estimate - reference).abs().mean(dim=(1, 2))
        spectral = [self._spectral(estimate, reference, window) for window in self.windows]
        return time + self.spectral_weight * torch.stack(spectral).mean(0)

    def _spectral(self, estimate: Tensor, reference: Tensor, window: int) -> Tensor:
        """Return the L1 of one resolution; what is missing is weighted by ``missing_weight``."""
        excess = self._root_magnitude(estimate, window) - self._root_magnitude(reference, window)
        return torch.where(excess < 0, -self.missing_weight * excess, excess).mean(dim=(1, 2, 3))

    def _root_magnitude(self, waveform: Tensor, window: int) -> Tensor:
        """Return the fourth root of the power spectrum of unit-scaled frames, ``(b, c, f, frame)``."""
        spectrum = stft(waveform, window, padding="constant")
        power = torch.view_as_real(spectrum).square().sum(-1) / window
        return (power + self.eps) ** 0.25


class CompressedL2:
    """Squared error of compressed spectra, ``scale |X|^0.5 e^(j phase)``, plus a little L1 of samples.

    Args:
        sample_rate: In Hz.
        window_seconds: Length of the Hann window; its hop is a quarter.
        scale: Of the compressed spectra, of windows that are not scaled.
        time_weight: Weight of the mean absolute error of samples.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024.
    """

    def __init__(
        self,
        sample_rate: int,
        window_seconds: float = 510 / 16000,
        scale: float = 0.15,
        time_weight: float = 1e-3,
    ) -> None:
        self.window = _window(window_seconds, sample_rate)
        self.scale, self.time_weight = scale, time_weight

    def __call__(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        error = self._compressed(estimate) - self._compressed(reference)
        spectral = error.square().sum(dim=-1).mean(dim=(1, 2, 3))
        return spectral + self.time_weight * (estimate - reference).abs().mean(dim=(1, 2))

    def _compressed(self, waveform: Tensor) -> Tensor:
        """Return real and imaginary parts ``(b, c, f, frame, 2)``."""
        real = torch.view_as_real(stft(waveform, self.window, padding="constant"))
        # the small constant keeps the slope at silence finite
        power = real.square().sum(dim=-1, keepdim=True) + 1e-8
        return self.scale * real * power**-0.25


class FixedOrder:
    """The source loss, mean over sources in the order of the configuration."""

    def __init__(self, source_loss: SourceLoss) -> None:
        self.source_loss = source_loss

    def __call__(self, estimates: Tensor, references: Tensor) -> Tensor:
        """``(b, s, c, t)`` twice to ``(b,)``."""
        pairs = zip(estimates.unbind(1), references.unbind(1), strict=True)
        return torch.stack([self.source_loss(estimate, reference) for estimate, reference in pairs]).mean(0)


class PermutationInvariant(FixedOrder):
    """The source loss, mean over sources in the order of estimates with the lowest mean, item by item.

    Source: D. Yu et al., "Permutation Invariant Training of Deep Models for Speaker-Independent Multi-talker
    Speech Separation", 2017.
    """

    def __call__(self, estimates: Tensor, references: Tensor) -> Tensor:
        """``(b, s, c, t)`` twice to ``(b,)``."""
        rows = [
            torch.stack([self.source_loss(estimate, reference) for estimate in estimates.unbind(1)], dim=-1)
            for reference in references.unbind(1)
        ]
        pairwise = torch.stack(rows, dim=1)
        # a signal that is not finite makes its whole row or column so: the mean shows it in every order
        order = best_assignment(-pairwise.detach())
        return pairwise.gather(2, order[..., None]).squeeze(2).mean(1)


def _window(seconds: float, sample_rate: int) -> int:
    """Return the even length of a window."""
    return 2 * round(seconds * sample_rate / 2)
