"""What steers a loop: measures by name, joint and guarded ones, and panels of measures."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torchaudio
from torch import Tensor

from encore.metrics import (
    METRIC_NAMES,
    GuardedQuality,
    JointQuality,
    MetricPanel,
    Quality,
    csdr,
    dnsmos,
    estoi,
    get_quality,
    pesq,
    sdr,
    si_sdr,
    snr,
    stoi,
    usdr,
)

RATE = 16000


def voices(batch: int, channels: int, *, seconds: float = 1.2, rate: int = RATE) -> Tensor:
    """Harmonics under a syllabic envelope, different in each item and channel; (batch, channel, time)."""
    time = torch.arange(int(seconds * rate)) / rate
    rows = []
    for row in range(batch * channels):
        phase = 2 * math.pi * torch.cumsum(110 + 20 * row + 25 * torch.sin(math.pi * time), 0) / rate
        harmonics = torch.stack([torch.sin(k * phase) / k for k in range(1, 20)]).sum(0)
        rows.append(0.1 * torch.sin(math.pi * 2.3 * time + row) ** 2 * harmonics)
    return torch.stack(rows).reshape(batch, channels, -1)


def noise_like(signal: Tensor, level: float = 0.01, seed: int = 0) -> Tensor:
    return level * torch.randn(signal.shape, generator=torch.Generator().manual_seed(seed))


TOGETHER = ("usdr", "csdr")  # channels are taken together: one of two may be silent


class Loudness(Quality):
    """A measure of a user's own: blind, counted, the peak of each item."""

    def __init__(self, name: str = "loudness", sample_rate: int = RATE) -> None:
        self.name, self.needs_reference, self.sample_rate = name, False, sample_rate
        self.rows = 0

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None):
        self.rows += len(estimate)
        return estimate.abs().amax((1, 2))


@pytest.mark.parametrize("name", [*METRIC_NAMES, "pesq_wb"])
def test_a_named_measure_is_the_mean_of_its_function_over_channels(name: str) -> None:
    reference = voices(3, 2)
    estimate = reference + noise_like(reference)
    down = (
        torchaudio.functional.resample(estimate, RATE, 8000),
        torchaudio.functional.resample(reference, RATE, 8000),
    )
    expected = {
        "si_sdr": lambda: si_sdr(estimate, reference),
        "sdr": lambda: sdr(estimate, reference),
        "snr": lambda: snr(estimate, reference),
        "usdr": lambda: usdr(estimate, reference),
        "csdr": lambda: csdr(estimate, reference, sample_rate=RATE),
        "pesq": lambda: pesq(estimate, reference),
        "pesq_wb": lambda: pesq(estimate, reference),
        "pesq_nb": lambda: pesq(*down, mode="nb"),
        "stoi": lambda: stoi(estimate, reference, sample_rate=RATE),
        "estoi": lambda: estoi(estimate, reference, sample_rate=RATE),
    }.get(name, lambda: dnsmos(estimate, names=(name,))[name])()
    quality = get_quality(name, sample_rate=RATE)
    assert quality.name == ("pesq" if name == "pesq_wb" else name)
    assert (quality.kind == "blind") == name.startswith("dnsmos") == (not quality.needs_reference)
    scores = quality(estimate, reference=reference)
    if name not in TOGETHER:
        expected = expected.mean(-1)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)
    # rows matched, and no item depends on another
    order = [2, 0, 1]
    permuted = quality(estimate[order], reference=reference[order])
    torch.testing.assert_close(permuted, scores[order], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        quality(estimate[1:2], reference=reference[1:2]), scores[1:2], rtol=1e-5, atol=0
    )


def test_a_channel_that_fails_makes_the_item_nan() -> None:
    reference = voices(2, 2)
    estimate = reference + noise_like(reference)
    estimate[1, 0] = 0
    for name in METRIC_NAMES:
        scores = get_quality(name, sample_rate=RATE)(estimate, reference=reference)
        assert scores.isnan().tolist() == [False, name not in TOGETHER], name


@pytest.mark.parametrize(
    ("name", "tolerance"), [("pesq", 0.05), ("pesq_nb", 0.05), ("stoi", 0.005), ("dnsmos_ovrl", 0.05)]
)
def test_audio_of_a_higher_rate_is_scored_at_the_measure_s_own(name: str, tolerance: float) -> None:
    reference = voices(1, 1)
    estimate = reference + noise_like(reference)
    at_48k = [
        torchaudio.functional.resample(signal, RATE, 48000, lowpass_filter_width=64)
        for signal in (estimate, reference)
    ]
    low = get_quality(name, sample_rate=RATE)(estimate, reference=reference)
    high = get_quality(name, sample_rate=48000)(at_48k[0], reference=at_48k[1])
    assert high.item() == pytest.approx(low.item(), abs=tolerance)


def test_a_slice_of_a_larger_tensor_is_resampled_too() -> None:
    sources = torch.stack((voices(2, 1), voices(2, 1).flip(-1)), dim=1)
    quality = get_quality("pesq_nb", sample_rate=RATE)
    sliced = quality(sources[:, 0], reference=sources[:, 0])
    assert torch.equal(sliced, quality(sources[:, 0].clone(), reference=sources[:, 0].clone()))


def test_mixed_precision_around_it_does_not_change_what_is_resampled() -> None:
    reference = voices(1, 1)
    estimate = reference + noise_like(reference)
    quality = get_quality("pesq_nb", sample_rate=RATE)
    expected = quality(estimate, reference=reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quality(estimate, reference=reference), expected)


def test_odd_rates_are_scored() -> None:
    reference = voices(1, 1, rate=44100)
    estimate = reference + noise_like(reference)
    for name in METRIC_NAMES:
        assert get_quality(name, sample_rate=44100)(estimate, reference=reference).isfinite().all(), name


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("sisdr", RATE, "name='sisdr' is no known measure: use one of 'si_sdr'"),
        ("pesq", 8000, "sample_rate=8000 is below the 16000 Hz that 'pesq' needs: use 'pesq_nb'"),
        ("dnsmos_bak", 8000, "sample_rate=8000 is below the 16000 Hz that 'dnsmos_bak' needs"),
        ("estoi", 8000, "sample_rate=8000 is below the 10000 Hz that 'estoi' needs"),
        ("pesq_nb", 4000, "sample_rate=4000 is below the 8000 Hz that 'pesq_nb' needs"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_so(name: str, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_quality(name, sample_rate=rate)
    with pytest.raises(ValueError, match=re.escape(message)):
        MetricPanel(["snr", name], sample_rate=rate)


def test_oracle_measures_ask_for_the_reference() -> None:
    with pytest.raises(ValueError, match="oracle measure 'pesq' needs reference="):
        get_quality("pesq", sample_rate=RATE)(voices(1, 1))


def test_joint_is_the_weighted_sum_of_scaled_gains_and_zero_at_one_step() -> None:
    reference = voices(2, 1)
    one_step = reference + noise_like(reference, 0.02)
    better = reference + noise_like(reference, 0.01)
    estimate = torch.cat([better[:1], one_step[1:]])
    members = [get_quality("si_sdr", sample_rate=RATE), get_quality("pesq", sample_rate=RATE)]
    joint = JointQuality(members, weights=(1.0, 0.5))
    assert (joint.name, joint.kind, joint.scales) == ("joint_si_sdr_pesq", "oracle", (1.0, 0.1))
    scores = joint(estimate, reference=reference, one_step=one_step)
    gains = [
        member(estimate, reference=reference) - member(one_step, reference=reference) for member in members
    ]
    torch.testing.assert_close(scores[0], (gains[0] + 0.5 * gains[1] / 0.1)[0], rtol=1e-4, atol=0)
    assert scores[0] > 6  # the noise has half the amplitude
    assert scores[1] == 0
    assert JointQuality(members, scales=(2, 1))(better, reference=reference, one_step=one_step)[0].item() == (
        pytest.approx((gains[0] / 2 + gains[1])[0].item(), rel=1e-4)
    )
    silent = joint(torch.zeros_like(estimate), reference=reference, one_step=one_step)
    assert silent.isnan().all()


def test_blind_joint_is_zero_at_one_step_however_the_batch_is_composed() -> None:
    one_step = voices(2, 1) + noise_like(voices(2, 1))
    joint = JointQuality([get_quality(f"dnsmos_{name}", sample_rate=RATE) for name in ("ovrl", "p808")])
    assert joint.kind == "blind"
    candidates = torch.cat([one_step, 0.5 * one_step, one_step])
    scores = joint(candidates, one_step=one_step.repeat(3, 1, 1))
    assert (scores == 0).tolist() == [True, True, False, False, True, True]


def test_guard_makes_candidates_ineligible_that_lower_it() -> None:
    reference = voices(3, 1)
    one_step = reference + noise_like(reference, 0.02)
    # an eligible gain, a gain in SI-SDR that a wrong level pays for, and the one-step estimate itself
    estimate = torch.stack(
        [
            reference[0] + noise_like(reference, 0.01)[0],
            0.3 * reference[1] + 1e-3 * noise_like(reference)[1],
            one_step[2],
        ]
    )
    guarded = GuardedQuality(get_quality("si_sdr", sample_rate=RATE), [get_quality("snr", sample_rate=RATE)])
    assert (guarded.name, guarded.kind) == ("si_sdr_guarded_snr", "oracle")
    assert re.fullmatch("[a-z0-9_]+", guarded.name)
    scores = guarded(estimate, reference=reference, one_step=one_step)
    assert scores.isnan().tolist() == [False, True, False]
    expected = si_sdr(estimate, reference)[:, 0]
    assert expected[1] > si_sdr(one_step, reference)[1, 0]
    torch.testing.assert_close(scores[[0, 2]], expected[[0, 2]])


def test_a_guard_that_cannot_score_lets_only_the_one_step_estimate_pass() -> None:
    one_step = voices(2, 1)
    too_short = one_step[..., :800]
    guarded = GuardedQuality(Loudness(), [get_quality("dnsmos_ovrl", sample_rate=RATE)])
    scores = guarded(torch.stack([too_short[0], 2 * too_short[1]]), one_step=too_short)
    assert scores.isnan().tolist() == [False, True]


def test_one_step_scores_are_remembered_by_content() -> None:
    loudness = Loudness()
    joint = JointQuality([loudness], scales=[1.0])
    one_step = voices(2, 1)
    candidates = 2 * one_step.repeat_interleave(5, 0)
    for _ in range(3):
        scores = joint(candidates, one_step=one_step.repeat_interleave(5, 0))
    assert loudness.rows == 3 * 10 + 2
    torch.testing.assert_close(scores, one_step.abs().amax((1, 2)).repeat_interleave(5))
    one_step *= 3  # the same tensor with other samples is another estimate
    torch.testing.assert_close(joint(candidates[::5], one_step=one_step), -one_step.abs().amax((1, 2)) / 3)
    # the other way round, and with a reference, which matters to oracle members
    oracle = JointQuality([get_quality("si_sdr", sample_rate=RATE)])
    for reference in (voices(2, 1), voices(2, 1).flip(0)):
        estimate = reference + noise_like(reference)
        expected = (si_sdr(estimate, reference) - si_sdr(one_step, reference))[:, 0]
        torch.testing.assert_close(oracle(estimate, reference=reference, one_step=one_step), expected)


def test_joint_and_guarded_refuse_what_does_not_fit() -> None:
    loudness, si_sdr_48k = Loudness(), get_quality("si_sdr", sample_rate=48000)
    with pytest.raises(ValueError, match="members have the sample rates"):
        JointQuality([si_sdr_48k, loudness])
    with pytest.raises(ValueError, match="give at least one"):
        JointQuality([])
    with pytest.raises(ValueError, match="'loudness' has no scale of its own: give scales="):
        JointQuality([loudness])
    with pytest.raises(ValueError, match=r"weights=\(1, 2\) does not fit 1 members"):
        JointQuality([si_sdr_48k], weights=(1, 2))
    with pytest.raises(ValueError, match="not all positive"):
        JointQuality([si_sdr_48k], scales=[0.0])
    with pytest.raises(ValueError, match=r"guards=\[\] guard nothing"):
        GuardedQuality(loudness, [])
    with pytest.raises(ValueError, match="'loudness_guarded_loudness' compares with the one-step estimate"):
        GuardedQuality(loudness, [loudness])(voices(1, 1))


def test_panel_scores_every_measure_as_it_is_scored_alone() -> None:
    reference = voices(2, 1)
    estimate = reference + noise_like(reference)
    scores = MetricPanel([*METRIC_NAMES, "pesq_wb"], sample_rate=RATE)(estimate, reference, mixture=estimate)
    assert tuple(scores) == METRIC_NAMES
    for name, values in scores.items():
        expected = get_quality(name, sample_rate=RATE)(estimate, reference=reference)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)


def test_panel_leaves_oracle_measures_out_without_a_reference() -> None:
    scores = MetricPanel(["si_sdr", "dnsmos_p808"], sample_rate=RATE)(voices(2, 1))
    assert list(scores) == ["dnsmos_p808"]
    assert scores["dnsmos_p808"].shape == (2,)


def test_panel_runs_each_dnsmos_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "encore.metrics.panel.dnsmos",
        lambda estimate, names: calls.append(tuple(names)) or dnsmos(estimate, names=names),
    )
    MetricPanel(["dnsmos_sig", "snr", "dnsmos_ovrl"], sample_rate=RATE)(voices(1, 1), voices(1, 1))
    assert calls == [("dnsmos_sig", "dnsmos_ovrl")]


def test_panel_with_workers_gives_the_same_scores() -> None:
    reference = voices(2, 2, rate=48000)
    estimate = reference + noise_like(reference)
    names = ["si_sdr", "pesq", "stoi"]
    expected = MetricPanel(names, sample_rate=48000)(estimate, reference)
    scores = MetricPanel(names, sample_rate=48000, workers=2)(estimate, reference)
    assert list(scores) == names
    for name in names:
        assert torch.equal(scores[name], expected[name]), name


def test_panels_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"names=\[\] measures nothing"):
        MetricPanel([], sample_rate=RATE)
    with pytest.raises(ValueError, match="workers=-1 is negative"):
        MetricPanel(["snr"], sample_rate=RATE, workers=-1)
