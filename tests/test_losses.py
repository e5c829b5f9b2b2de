from __future__ import annotations

from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

from encore.lightning_modules.losses import (
    CompressedL2,
    FixedOrder,
    PermutationInvariant,
    SourceLoss,
    SpectralL1,
    WeightedSum,
    negative_si_sdr,
    negative_snr,
)

SOURCE_LOSSES = {
    "si_sdr": negative_si_sdr,
    "snr": negative_snr,
    "spectral": SpectralL1(8000),
    "compressed": CompressedL2(8000),
}


def pairs(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    reference, error = 0.1 * torch.randn(2, *shape, generator=generator)
    levels = torch.rand(shape[0], generator=generator).reshape(-1, *(1 for _ in shape[1:]))
    return 0.6 * reference + levels * error, reference


@pytest.mark.parametrize(
    ("loss", "metric"),
    [(negative_si_sdr, scale_invariant_signal_distortion_ratio), (negative_snr, signal_noise_ratio)],
)
def test_ratios_in_decibels_are_those_of_torchmetrics(loss: SourceLoss, metric) -> None:
    estimate, reference = pairs(5, 2, 4000)
    assert loss(estimate, reference).shape == (5,)
    torch.testing.assert_close(
        loss(estimate, reference), -metric(estimate, reference).mean(-1), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("name", SOURCE_LOSSES)
@pytest.mark.parametrize("silent", ["estimate", "reference", "both"])
@pytest.mark.parametrize("lift", [FixedOrder, PermutationInvariant])
def test_silence_has_finite_value_and_gradient(name: str, silent: str, lift) -> None:
    estimates, references = pairs(2, 2, 1, 1000)
    estimates = torch.zeros_like(estimates) if silent in ("estimate", "both") else estimates
    references = torch.zeros_like(references) if silent in ("reference", "both") else references
    estimates.requires_grad_()
    references.requires_grad_()
    value = lift(SOURCE_LOSSES[name])(estimates, references)
    value.sum().backward()
    assert value.isfinite().all()
    assert estimates.grad.isfinite().all()
    assert references.grad.isfinite().all()


@pytest.mark.parametrize("name", SOURCE_LOSSES)
def test_better_is_lower_item_by_item(name: str) -> None:
    estimate, reference = pairs(4, 2, 1500)
    loss = SOURCE_LOSSES[name]
    together = loss(estimate, reference)
    alone = torch.cat([loss(estimate[i : i + 1], reference[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    assert (loss(0.5 * (estimate + reference), reference) < together).all()


def test_spectral_loss_is_zero_at_the_reference_only_and_relative_to_its_level() -> None:
    estimate, reference = pairs(3, 2, 4000)
    loss = SpectralL1(16000)
    assert (loss(reference, reference) == 0).all()
    value = loss(estimate, reference)
    assert (value > 0.01).all()
    torch.testing.assert_close(loss(7 * estimate, 7 * reference), value, rtol=1e-4, atol=0)
    # below the floor of RMS 0.01 the level counts: at a 100th of it, errors weigh a 100th
    quiet = SpectralL1(16000, spectral_weight=0.0)
    down = 1e-4 / reference.square().mean((1, 2), keepdim=True).sqrt()
    expected = (down * (estimate - reference)).abs().mean((1, 2)) / 0.01
    torch.testing.assert_close(quiet(down * estimate, down * reference), expected, rtol=1e-4, atol=0)


def test_spectral_loss_is_its_formula() -> None:
    """A direct transform of each frame, in float64, for one resolution."""
    estimate, reference = (signal.double() for signal in pairs(1, 1, 320))
    level = reference.square().mean().sqrt()
    length, hop = 64, 16
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(length) / length).double()
    basis = torch.exp(-2j * torch.pi * torch.outer(torch.arange(33), torch.arange(length)) / length)

    def root_magnitude(signal: Tensor) -> Tensor:
        padded = torch.nn.functional.pad((signal / level).flatten(), (32, 32))
        frames = padded.unfold(0, length, hop) * window
        power = (frames.to(torch.complex128) @ basis.to(torch.complex128).T).abs().square() / length
        return (power + 1e-6) ** 0.25

    time = (estimate - reference).abs().mean() / level
    spectral = (root_magnitude(estimate) - root_magnitude(reference)).abs().mean()
    loss = SpectralL1(8000, window_seconds=[0.008], spectral_weight=0.5)
    expected = (time + 0.5 * spectral).reshape(1).float()
    torch.testing.assert_close(loss(estimate.float(), reference.float()), expected, rtol=1e-4, atol=0)


def test_the_compressed_loss_is_written_out() -> None:
    estimate, reference = pairs(2, 1, 1600)
    found = CompressedL2(16000)(estimate, reference)

    def compressed(x: Tensor) -> Tensor:
        transform = partial(torch.stft, n_fft=510, hop_length=127, pad_mode="constant", return_complex=True)
        spectrum = transform(x[:, 0].double(), window=torch.hann_window(510).double())
        return 0.15 * torch.polar(spectrum.abs().sqrt(), spectrum.angle())

    error = (compressed(estimate) - compressed(reference)).abs().square().mean(dim=(1, 2))
    time = (estimate - reference).abs().mean(dim=(1, 2))
    torch.testing.assert_close(found.double(), error + 1e-3 * time, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", SOURCE_LOSSES)
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_permutation_invariance_is_the_best_of_all_orders(name: str, sources: int) -> None:
    generator = Generator().manual_seed(1)
    references = 0.1 * torch.randn(6, sources, 2, 600, generator=generator)
    estimates = references + 0.1 * torch.randn(references.shape, generator=generator)
    orders = torch.stack([torch.randperm(sources, generator=generator) for _ in range(6)])
    shuffled = torch.stack([item[order] for item, order in zip(estimates, orders, strict=True)])
    given = [shuffled.clone().requires_grad_() for _ in range(2)]
    fixed, invariant = FixedOrder(SOURCE_LOSSES[name]), PermutationInvariant(SOURCE_LOSSES[name])
    every = torch.stack(
        [fixed(given[0][:, list(order)], references) for order in permutations(range(sources))]
    )
    values = every.amin(0), invariant(given[1], references)
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)
    torch.testing.assert_close(values[1], fixed(estimates, references), rtol=1e-5, atol=0)
    gradients = [
        torch.autograd.grad(value.square().sum(), own)[0] for value, own in zip(values, given, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
    assert gradients[0].abs().amax(dim=(2, 3)).gt(0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_signal_that_is_not_finite_spoils_its_own_item_only(bad: float) -> None:
    estimates, references = pairs(2, 3, 1, 500)
    estimates[1, 2, 0, 7] = bad
    values = PermutationInvariant(negative_snr)(estimates, references)
    assert values.isfinite().tolist() == [True, False]


def test_fixed_order_is_the_mean_over_sources() -> None:
    estimates, references = pairs(4, 3, 1, 500)
    expected = sum(negative_snr(estimates[:, k], references[:, k]) for k in range(3)) / 3
    torch.testing.assert_close(FixedOrder(negative_snr)(estimates, references), expected)
    with pytest.raises(ValueError, match="zip"):
        FixedOrder(negative_snr)(estimates, references[:, :2])


def test_losses_are_computed_on_the_device_of_the_signals() -> None:
    signals = torch.zeros(2, 2, 1, 500, device="meta")
    loss = FixedOrder(WeightedSum({"a": SpectralL1(8000), "b": CompressedL2(8000)}, {"a": 0.5, "b": 1.0}))
    assert loss(signals, signals).device.type == "meta"


@pytest.mark.parametrize("ceiling", [10.0, 30.0])
def test_an_estimate_as_good_as_the_ceiling_counts_half_its_noise(ceiling: float) -> None:
    """``-10 log10(1 / (1 / SNR + 1 / ceiling))``: 3 dB less at the ceiling."""
    _, reference = pairs(2, 1, 4000)
    at_ceiling = (1 - 10 ** (-ceiling / 20)) * reference
    value = negative_snr(at_ceiling, reference, max_db=ceiling)
    torch.testing.assert_close(value, torch.full((2,), -ceiling + 3.0103), rtol=1e-4, atol=0)
    at_reference = negative_snr(reference, reference, max_db=ceiling)
    torch.testing.assert_close(at_reference, torch.full((2,), -ceiling), rtol=1e-4, atol=0)


def test_a_weighted_sum_is_that() -> None:
    estimate, reference = pairs(3, 1, 1000)
    spectral = SpectralL1(8000)
    loss = WeightedSum({"a": negative_snr, "b": spectral}, {"a": 0.1, "b": 2.0})
    expected = 0.1 * negative_snr(estimate, reference) + 2 * spectral(estimate, reference)
    torch.testing.assert_close(loss(estimate, reference), expected)
    with pytest.raises(ValueError, match="weights="):
        WeightedSum({"a": negative_snr}, {"b": 1.0})


def test_missing_magnitudes_weigh_more_than_left_over_ones() -> None:
    reference = torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0))
    plain = SpectralL1(16000, spectral_weight=1.0)
    heavy = SpectralL1(16000, spectral_weight=1.0, missing_weight=3.0)
    # halved, every magnitude is missing some; doubled, none is
    half, double = reference / 2, reference * 2
    time = float((half - reference).abs().mean() / reference.square().mean().sqrt())
    assert float(heavy(half, reference)) - time == pytest.approx(
        3 * (float(plain(half, reference)) - time), rel=1e-4
    )
    assert float(heavy(double, reference)) == pytest.approx(float(plain(double, reference)), rel=1e-5)
