"""Apply a multichannel Wiener filter to an estimate and the input it was separated from."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from encore.common.dsp import istft, stft


class Wiener:
    """Filter an input by the spectra and covariances of an estimate and of the rest of the input.

    In the spectrum, the target's magnitude and that of the input less the target give a soft mask; from the
    two signals that it makes, ``iterations`` rounds estimate each one's power in every bin of time and
    frequency and its spatial covariance in every frequency, and filter the input by them. The result keeps
    the phase of the estimate that went in.

    Args:
        multichannel: Whether the channels are filtered together, with their covariances; else each alone,
            by the ratio of powers.
        iterations: Rounds, 1 or more.
        window: Samples of the Hann analysis window, even; the hop is a quarter.

    Raises:
        ValueError: If a number makes no sense.

    Source: A. Nugraha, A. Liutkus, E. Vincent, "Multichannel music separation with deep neural networks",
    2016, in the form of ``norbert.wiener``, which "Progressive inference for music demixing" (2025) applies.
    """

    def __init__(self, *, multichannel: bool = True, iterations: int = 1, window: int = 4096) -> None:
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: give 1 or more")
        if window < 8 or window % 4:
            raise ValueError(f"window={window}: give a multiple of 4 samples, such as 4096")
        self.multichannel, self.iterations, self.window = multichannel, iterations, window

    @classmethod
    def at_rate(cls, sample_rate: int, *, multichannel: bool = True, iterations: int = 1) -> Wiener:
        """Return a filter with the window of 4096 samples at 44.1 kHz, in time, for any rate in Hz."""
        window = 4 * max(2, round(4096 / 44100 * sample_rate / 4))
        return cls(multichannel=multichannel, iterations=iterations, window=window)

    def __call__(self, estimates: Tensor, inputs: Tensor) -> Tensor:
        """Filter estimates of any number of sources, each against its own input.

        Args:
            estimates: ``(b, s, c, t)``.
            inputs: Same shape: the input that each source was separated from.

        Returns:
            ``(b, s, c, t)``.
        """
        time = estimates.shape[-1]
        grouping = "b s c t -> (b s) c t" if self.multichannel else "b s c t -> (b s c) 1 t"
        target, mixture = (stft(rearrange(x, grouping).float(), self.window) for x in (estimates, inputs))
        filtered = torch.polar(_filtered(target, mixture, self.iterations).abs(), target.angle())
        waveform = istft(filtered, self.window, time)
        return waveform.reshape(estimates.shape).to(estimates.dtype)


def _filtered(target: Tensor, mixture: Tensor, iterations: int) -> Tensor:
    """Return the filtered target of target and mixture ``(b, c, f, t)``."""
    epsilon = torch.finfo(target.real.dtype).eps
    claims = torch.stack((target.abs(), (mixture - target).abs()))
    # rounding errors are relative: the powers below want numbers of moderate size, as norbert has them
    scale = (mixture.abs().amax(dim=(1, 2, 3), keepdim=True) / 10).clamp_min(1.0)
    mixture = mixture / scale
    sources = claims / (epsilon + claims.sum(0)) * mixture
    for _ in range(iterations):
        sources = _iterated(sources, mixture, epsilon)
    return sources[0] * scale


def _iterated(sources: Tensor, mixture: Tensor, epsilon: float) -> Tensor:
    """Run one round on ``(source, b, c, f, t)``: local Gaussian models of all sources, then their filters."""
    power = sources.abs().square().mean(dim=2)  # (source, b, f, t)
    covariance = torch.einsum("sbcft,sbdft->sbfcd", sources, sources.conj())
    covariance = covariance / (epsilon + power.sum(-1))[..., None, None]
    channels = mixture.shape[1]
    total = torch.einsum("sbft,sbfcd->bftcd", power.to(covariance.dtype), covariance)
    total = total + epsilon**0.5 * torch.eye(channels, device=mixture.device, dtype=mixture.dtype)
    whitened = torch.linalg.solve(total, rearrange(mixture, "b c f t -> b f t c 1"))[..., 0]
    return torch.einsum("sbft,sbfcd,bftd->sbcft", power.to(covariance.dtype), covariance, whitened)
