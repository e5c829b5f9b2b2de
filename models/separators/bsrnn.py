"""Band-split recurrent network (BSRNN), in every published size and at any sampling rate."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from encore.models.separators.band_split import BandSplitNetwork
from encore.models.separators.contract import SeparatorNetwork


class BSRNN(BandSplitNetwork, SeparatorNetwork):
    """Separate by band-wise complex masks that recurrent layers along time and along bands predict.

    The spectrum is split into bands that are fixed in Hz. Each band is normalized and projected to
    ``features``; then every layer runs one bidirectional LSTM along time (per band) and one along bands (per
    frame), each with normalization, projection and a residual; per-band decoders give a complex mask and a
    complex residual for every source: ``estimate = mask * mixture + residual``.

    All bands up to ``max_sample_rate`` have weights; audio of a lower rate uses the lower bands, the one at
    its Nyquist frequency filled up with zeros. So one set of weights serves every rate.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz, at most ``max_sample_rate``.
        channels: Channels of the audio; each is separated on its own, with the same weights.
        features: Width N of the band features; the LSTMs have 2N units per direction.
        layers: Number of layers, each of them one time and one band recurrence.
        bands: The band layout below ``max_sample_rate / 2``.
        window_seconds: Length of the Hann window, rounded to an even number of samples; its hop is half.
        max_sample_rate: The highest rate that the weights serve, in Hz.
        compression: Exponent in (0, 1] of the input magnitudes, below 1 emphasizing quiet bands; 1 as
            published.
        norm: ``"sequence"`` normalizes over all positions of a sequence together, as published, and keeps
            the relative level of frames; ``"position"`` normalizes each position by itself.
        checkpointing: Whether training keeps only the inputs of the layers and recomputes the activations for
            the gradients: less memory for about a third more time.

    Raises:
        ValueError: If ``sample_rate`` is above ``max_sample_rate``, or a band is narrower than a bin.

    Source: Y. Luo and J. Yu, "Music Source Separation with Band-Split RNN", 2023; J. Yu et al., "Efficient
    Monaural Speech Enhancement with Universal Sample Rate Band-Split RNN", 2023 (rate independence).
    """

    any_channels = True

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        spectrum = self.transform(rearrange(mixture, "b c t -> (b c) t"))
        scale = self.level(spectrum)
        masks, residuals = self.estimate((spectrum / scale)[:, None])
        estimates = masks * spectrum[:, None] + residuals * scale[:, None]
        estimates = self.transform.inverse(estimates, mixture.shape[-1])
        return rearrange(estimates, "(b c) s t -> b s c t", c=mixture.shape[1])
