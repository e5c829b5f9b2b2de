"""Training losses: lower is better, one value per item, finite for silence.

A *source loss* maps ``(b, c, t)`` estimates and references of one source to ``(b,)``; `FixedOrder` and
`PermutationInvariant` lift it to ``(b, s, c, t)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from encore.common.dsp import stft

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


class WeightedSum(nn.Module):
    """Several source losses as one.

    Args:
        losses: Source losses by any key; the key lets a config override one of them.
        weights: A weight for each key.
    """

    def __init__(self, losses: Mapping[str, SourceLoss], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ValueError(f"weights={sorted(weights)} must name the losses {sorted(losses)}")
        self.losses, self.weights = dict(losses), dict(weights)
        # registered, so that their windows move to the device
        self.parts = nn.ModuleList(loss for loss in losses.values() if isinstance(loss, nn.Module))

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        parts = [self.weights[name] * loss(estimate, reference) for name, loss in self.losses.items()]
        return torch.stack(parts).sum(0)


class SpectralL1(nn.Module):
    """L1 in time plus L1 of square-root magnitudes at several resolutions, relative to the reference's level.

    Args:
        window_seconds: Analysis windows, one per resolution; the hop is a quarter of each.
        sample_rate: In Hz.
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
        super().__init__()
        self.lengths = [2 * round(seconds * sample_rate / 2) for seconds in window_seconds]
        self.spectral_weight, self.missing_weight = spectral_weight, missing_weight
        self.level_floor, self.eps = level_floor, eps
        for length in self.lengths:
            self.register_buffer(f"window_{length}", torch.hann_window(length), persistent=False)

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        # clamped before the root: its gradient is infinite at silence
        level = reference.square().mean(dim=(1, 2), keepdim=True).clamp_min(self.level_floor**2).sqrt()
        estimate, reference = estimate / level, reference / level
        time = (estimate - reference).abs().mean(dim=(1, 2))
        spectral = torch.stack(
            [
                self._weighted(
                    self._root_magnitude(estimate, length) - self._root_magnitude(reference, length)
                )
                for length in self.lengths
            ]
        ).mean(0)
        return time + self.spectral_weight * spectral

    def _weighted(self, excess: Tensor) -> Tensor:
        """Mean size of ``(b, c, f, frame)``, what is missing weighted by ``missing_weight``."""
        return torch.where(excess < 0, -self.missing_weight * excess, excess).mean(dim=(1, 2, 3))

    def _root_magnitude(self, waveform: Tensor, length: int) -> Tensor:
        """Fourth root of the power spectrum of unit-scaled frames, ``(b, c, f, frame)``."""
        spectrum = stft(waveform, self.get_buffer(f"window_{length}"), padding="constant")
        power = torch.view_as_real(spectrum).square().sum(-1) / length
        return (power + self.eps) ** 0.25


class CompressedL2(nn.Module):
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
        super().__init__()
        self.length = 2 * round(window_seconds * sample_rate / 2)
        self.scale, self.time_weight = scale, time_weight
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """``(b, c, t)`` twice to ``(b,)``."""
        error = self._compressed(estimate) - self._compressed(reference)
        spectral = error.square().sum(dim=-1).mean(dim=(1, 2, 3))
        return spectral + self.time_weight * (estimate - reference).abs().mean(dim=(1, 2))

    def _compressed(self, waveform: Tensor) -> Tensor:
        """Real and imaginary parts ``(b, c, f, frame, 2)``."""
        real = torch.view_as_real(stft(waveform, self.window, padding="constant"))
        # the small constant keeps the slope at silence finite
        power = real.square().sum(dim=-1, keepdim=True) + 1e-8
        return self.scale * real * power**-0.25


class FixedOrder(nn.Module):
    """The source loss, mean over sources in the order of the configuration."""

    def __init__(self, source_loss: SourceLoss) -> None:
        super().__init__()
        self.source_loss = source_loss

    def forward(self, estimates: Tensor, references: Tensor) -> Tensor:
        """``(b, s, c, t)`` twice to ``(b,)``."""
        pairs = zip(estimates.unbind(1), references.unbind(1), strict=True)
        return torch.stack([self.source_loss(estimate, reference) for estimate, reference in pairs]).mean(0)


class PermutationInvariant(nn.Module):
    """The source loss, mean over sources in the order of estimates with the lowest mean, item by item.

    Source: D. Yu et al., "Permutation Invariant Training of Deep Models for Speaker-Independent Multi-talker
    Speech Separation", 2017.
    """

    def __init__(self, source_loss: SourceLoss) -> None:
        super().__init__()
        self.source_loss = source_loss

    def forward(self, estimates: Tensor, references: Tensor) -> Tensor:
        """``(b, s, c, t)`` twice to ``(b,)``."""
        rows = [
            torch.stack([self.source_loss(estimate, reference) for estimate in estimates.unbind(1)], dim=-1)
            for reference in references.unbind(1)
        ]
        pairwise = torch.stack(rows, dim=1)
        # a signal that is not finite makes its whole row or column so: the mean shows it in every order
        costs = pairwise.detach().double().nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
        order = torch.stack([torch.from_numpy(linear_sum_assignment(item)[1]) for item in costs])
        return pairwise.gather(2, order.to(pairwise.device)[..., None]).squeeze(2).mean(1)
