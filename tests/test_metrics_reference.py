"""Oracle metrics against torchmetrics, mir_eval and closed forms; the policy for what cannot be scored."""

from __future__ import annotations

import math
import subprocess
import sys

import mir_eval
import pytest
import torch
from speech_toys import RATE, noisy, voices
from torch import Tensor
from torchmetrics.functional.audio import (
    perceptual_evaluation_speech_quality,
    scale_invariant_signal_distortion_ratio,
    short_time_objective_intelligibility,
    signal_distortion_ratio,
    signal_noise_ratio,
)

from encore.metrics.reference import estoi, pesq, sdr, si_sdr, snr, stoi


def stoi_16k(estimate: Tensor, reference: Tensor) -> Tensor:
    return stoi(estimate, reference, sample_rate=RATE)


def estoi_16k(estimate: Tensor, reference: Tensor) -> Tensor:
    return estoi(estimate, reference, sample_rate=RATE)


DIFFERENTIABLE = [si_sdr, snr, sdr]


REFERENCE = voices(2, 2, seconds=2)
ESTIMATE = 0.7 * noisy(REFERENCE)


@pytest.mark.parametrize(
    ("metric", "published", "tolerance"),
    [
        (si_sdr, scale_invariant_signal_distortion_ratio, 1e-4),
        (snr, signal_noise_ratio, 1e-4),
        (sdr, signal_distortion_ratio, 1e-5),
        (pesq, lambda *pair: perceptual_evaluation_speech_quality(*pair, RATE, "wb"), 1e-4),
        (
            lambda *pair: pesq(*(x[..., ::2] for x in pair), mode="nb"),
            lambda *pair: perceptual_evaluation_speech_quality(*(x[..., ::2] for x in pair), 8000, "nb"),
            1e-4,
        ),
        (stoi_16k, lambda *pair: short_time_objective_intelligibility(*pair, RATE).float(), 1e-4),
        (estoi_16k, lambda *pair: short_time_objective_intelligibility(*pair, RATE, True).float(), 1e-4),
    ],
    ids=["si_sdr", "snr", "sdr", "pesq", "pesq_nb", "stoi", "estoi"],
)
def test_metrics_agree_with_torchmetrics(metric, published, tolerance: float) -> None:
    expected = published(ESTIMATE, REFERENCE).reshape(2, 2)
    torch.testing.assert_close(metric(ESTIMATE, REFERENCE), expected, rtol=tolerance, atol=0)


def test_sdr_agrees_with_mir_eval() -> None:
    reference = voices(seconds=1)
    echo = torch.nn.functional.pad(reference, (40, 0))[: len(reference)]
    estimate = noisy(reference + 0.5 * echo)
    with pytest.warns(FutureWarning):
        expected = mir_eval.separation.bss_eval_sources(
            reference[None].numpy(), estimate[None].numpy(), False
        )[0]
    assert sdr(estimate, reference).item() == pytest.approx(expected.item(), rel=1e-3)
    assert sdr(estimate, reference) > si_sdr(estimate, reference) + 3  # the echo is a filter, and forgiven


def test_closed_forms() -> None:
    reference = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    orthogonal = torch.tensor([0.1, 0.1, -0.1, -0.1], dtype=torch.float64)
    assert si_sdr(reference + orthogonal, reference).item() == pytest.approx(20.0)
    assert snr(reference + orthogonal, reference).item() == pytest.approx(20.0)
    assert snr(0.5 * reference, reference).item() == pytest.approx(20 * math.log10(2))
    # no mean is removed: a constant offset is distortion
    assert si_sdr(reference + 1, reference).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("metric", [si_sdr, sdr, pesq, stoi_16k])
@pytest.mark.parametrize("gain", [1e-6, 40.0])
def test_gain_of_the_estimate_and_full_scale_are_irrelevant(metric, gain: float) -> None:
    estimate, reference = ESTIMATE[0, 0], REFERENCE[0, 0]
    expected = metric(estimate, reference).item()
    assert metric(gain * estimate, reference).item() == pytest.approx(expected, rel=1e-3)
    if metric is not stoi_16k or gain > 1:
        assert metric(gain * estimate, gain * reference).item() == pytest.approx(expected, rel=1e-3)


def test_perfect_and_orthogonal_estimates_have_finite_scores() -> None:
    reference = voices(seconds=1)
    assert si_sdr(reference, reference).item() == pytest.approx(138.47, abs=0.01)
    assert snr(reference, reference).item() == pytest.approx(138.47, abs=0.01)
    assert 100 < sdr(reference, reference).item() <= 156.6
    one, other = torch.eye(2)
    assert si_sdr(one, other).item() == pytest.approx(-138.47, abs=0.01)
    tiny = 1e-25 * reference  # squares of such samples are 0 in float32
    assert si_sdr(noisy(reference) * 1e-25, tiny).item() == pytest.approx(
        si_sdr(noisy(reference), reference).item(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("metric", "longest"),
    [(sdr, 511), (pesq, 0.24 * RATE), (stoi_16k, 0.39 * RATE), (estoi_16k, 0.39 * RATE)],
)
def test_short_signals_are_nan_without_a_warning(
    metric, longest: float, recwarn: pytest.WarningsRecorder
) -> None:
    reference = voices(seconds=2)
    for time in (0, 1, 100, int(longest)):
        assert metric(noisy(reference)[:time], reference[:time]).isnan()
    assert metric(noisy(reference), reference).isfinite()
    assert not recwarn.list


def test_pesq_survives_more_utterances_than_its_code_has_room_for() -> None:
    time = torch.arange(45 * RATE) / RATE
    reference = torch.randn(len(time), generator=torch.Generator().manual_seed(0)) * (time % 0.5 < 0.25)
    estimate = noisy(reference, 0.1)
    pieces = [pesq(one, other) for one, other in zip(estimate.chunk(3), reference.chunk(3), strict=True)]
    assert pesq(estimate, reference).item() == pytest.approx(torch.stack(pieces).mean().item(), rel=1e-5)


def test_pesq_leaves_out_long_silence_in_the_reference() -> None:
    reference = torch.cat([voices(seconds=15), torch.zeros(15 * RATE)])
    estimate = noisy(reference)
    assert pesq(estimate, reference).item() == pytest.approx(
        pesq(estimate[: 15 * RATE], reference[: 15 * RATE]).item()
    )


@pytest.mark.parametrize("metric", DIFFERENTIABLE)
def test_gradients_agree_with_finite_differences_and_stay_finite(metric) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(600, dtype=torch.float64, generator=generator)
    estimate = (reference + 0.3 * torch.randn(600, dtype=torch.float64, generator=generator)).requires_grad_()
    direction = torch.randn(600, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad(metric(estimate, reference), estimate)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (metric(estimate + sign * step * direction, reference) for sign in (1, -1))
    assert (gradient @ direction).item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-5)
    batch = torch.stack([estimate.detach(), torch.zeros(600, dtype=torch.float64)]).requires_grad_()
    scores = metric(batch, torch.stack([reference, reference]))
    (gradients,) = torch.autograd.grad(scores[0], batch)
    assert gradients.isfinite().all()
    assert not gradients[1].any()


def test_sdr_works_in_threads_whose_number_was_set() -> None:
    """Torch's batched solver does not (pytorch issue 142815); in another process, as tests use one."""
    program = (
        "import torch; from concurrent.futures import ThreadPoolExecutor\n"
        "from encore.metrics.reference import sdr\n"
        "torch.set_num_threads(2); x = torch.randn(6, 16000); y = x + 0.1 * torch.randn(6, 16000)\n"
        "with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:\n"
        "    list(pool.map(sdr, (y, y), (x, x)))\n"
        "torch.set_num_threads(2); print(bool((sdr(y, x) > 15).all()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
