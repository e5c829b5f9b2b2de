"""Metrics by name, the qualities that they are bound to, and panels of metrics."""

from __future__ import annotations

import math
import re
import sys

import pytest
import torch
import torchaudio
from torch import Tensor

from encore.metrics import (
    METRIC_NAMES,
    Metric,
    MetricPanel,
    csdr,
    default_metrics,
    dnsmos,
    estoi,
    get_metric,
    oracle,
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


@pytest.mark.parametrize("name", [*METRIC_NAMES, "pesq_wb"])
def test_a_named_metric_is_the_mean_of_its_function_over_channels(name: str) -> None:
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
    metric = get_metric(name, sample_rate=RATE)
    assert metric.name == ("pesq" if name == "pesq_wb" else name)
    assert (metric.kind == "blind") == name.startswith("dnsmos") == (not metric.needs_reference)
    scores = metric.score(estimate, reference)
    if name not in TOGETHER:
        expected = expected.mean(-1)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)
    # rows matched, and no item depends on another
    order = [2, 0, 1]
    permuted = metric.score(estimate[order], reference[order])
    torch.testing.assert_close(permuted, scores[order], rtol=1e-5, atol=0)
    torch.testing.assert_close(metric.score(estimate[1:2], reference[1:2]), scores[1:2], rtol=1e-5, atol=0)


def test_a_channel_that_fails_makes_the_item_nan() -> None:
    reference = voices(2, 2)
    estimate = reference + noise_like(reference)
    estimate[1, 0] = 0
    for name in METRIC_NAMES:
        scores = get_metric(name, sample_rate=RATE).score(estimate, reference)
        assert scores.isnan().tolist() == [False, name not in TOGETHER], name


@pytest.mark.parametrize(
    ("name", "tolerance"), [("pesq", 0.05), ("pesq_nb", 0.05), ("stoi", 0.005), ("dnsmos_ovrl", 0.05)]
)
def test_audio_of_a_higher_rate_is_scored_at_the_metric_s_own(name: str, tolerance: float) -> None:
    reference = voices(1, 1)
    estimate = reference + noise_like(reference)
    at_48k = [
        torchaudio.functional.resample(signal, RATE, 48000, lowpass_filter_width=64)
        for signal in (estimate, reference)
    ]
    low = get_metric(name, sample_rate=RATE).score(estimate, reference)
    high = get_metric(name, sample_rate=48000).score(at_48k[0], at_48k[1])
    assert high.item() == pytest.approx(low.item(), abs=tolerance)


def test_a_slice_of_a_larger_tensor_is_resampled_too() -> None:
    sources = torch.stack((voices(2, 1), voices(2, 1).flip(-1)), dim=1)
    metric = get_metric("pesq_nb", sample_rate=RATE)
    sliced = metric.score(sources[:, 0], sources[:, 0])
    assert torch.equal(sliced, metric.score(sources[:, 0].clone(), sources[:, 0].clone()))


def test_mixed_precision_around_it_does_not_change_what_is_resampled() -> None:
    reference = voices(1, 1)
    estimate = reference + noise_like(reference)
    metric = get_metric("pesq_nb", sample_rate=RATE)
    expected = metric.score(estimate, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric.score(estimate, reference), expected)


def test_odd_rates_are_scored() -> None:
    reference = voices(1, 1, rate=44100)
    estimate = reference + noise_like(reference)
    for name in METRIC_NAMES:
        assert get_metric(name, sample_rate=44100).score(estimate, reference).isfinite().all(), name


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("sisdr", RATE, "name='sisdr' is no known metric: use one of 'si_sdr'"),
        ("pesq", 8000, "sample_rate=8000 is below the 16000 Hz that 'pesq' needs: use 'pesq_nb'"),
        ("dnsmos_bak", 8000, "sample_rate=8000 is below the 16000 Hz that 'dnsmos_bak' needs"),
        ("estoi", 8000, "sample_rate=8000 is below the 10000 Hz that 'estoi' needs"),
        ("pesq_nb", 4000, "sample_rate=4000 is below the 8000 Hz that 'pesq_nb' needs"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_so(name: str, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_metric(name, sample_rate=rate)
    with pytest.raises(ValueError, match=re.escape(message)):
        MetricPanel(["snr", name], sample_rate=rate)


def test_misspelt_names_are_looked_for_in_all_metrics() -> None:
    for name, near in (("remix_agrement", "remix_agreement"), ("nisqa", "nisqa_mos"), ("pesq_bn", "pesq_nb")):
        with pytest.raises(ValueError, match=f"name='{name}' is no known metric: use one of '{near}'"):
            get_metric(name, sample_rate=RATE)


def pairs() -> tuple[Tensor, Tensor]:
    """Estimates and references of two sources with two channels in three items, all different."""
    references = voices(6, 2).unflatten(0, (3, 2))
    return references + noise_like(references) * torch.tensor([1.0, 2.0, 3.0])[
        :, None, None, None
    ], references


@pytest.mark.parametrize("name", ["si_sdr", "usdr", "pesq", "dnsmos_p808"])
def test_a_bound_metric_scores_source_by_source_and_the_items_that_it_is_taken_at(name: str) -> None:
    estimates, references = pairs()
    metric = get_metric(name, sample_rate=RATE)
    quality = metric.bind(references=references)
    assert (quality.name, quality.kind, quality.scale) == (name, metric.kind, metric.scale)
    assert quality.differentiable == metric.differentiable
    expected = [metric.score(estimates[:, k], references[:, k]) for k in range(2)]
    scores = quality.per_source(estimates)
    torch.testing.assert_close(scores, torch.stack(expected, dim=1), rtol=1e-5, atol=0)
    assert torch.equal(quality(estimates), scores.mean(1))
    assert quality.relative_to(0.5 * estimates) is quality
    items = torch.tensor([2, 0, 2])
    torch.testing.assert_close(
        quality.at(items)(estimates[items]), quality(estimates)[items], rtol=1e-5, atol=0
    )
    again = quality.at(items).at(torch.tensor([1]))
    torch.testing.assert_close(again(estimates[:1]), quality(estimates)[:1], rtol=1e-5, atol=0)
    assert quality(estimates.double()).dtype == torch.float32


def test_a_blind_metric_is_a_quality_as_it_is_and_an_oracle_needs_its_reference() -> None:
    estimates, _ = pairs()
    blind = get_metric("dnsmos_p808", sample_rate=RATE)
    assert torch.equal(blind(estimates), blind.bind()(estimates))
    for use in (lambda metric: metric(estimates), lambda metric: metric.relative_to(estimates)):
        with pytest.raises(
            ValueError, match=r"'pesq' is an oracle, give its reference: metric.bind\(reference"
        ):
            use(get_metric("pesq", sample_rate=RATE))
    with pytest.raises(ValueError, match="'pesq' is an oracle, give them"):
        get_metric("pesq", sample_rate=RATE).score(estimates[:, 0], None)


def test_an_oracle_is_made_of_a_metric_or_of_any_function() -> None:
    estimates, references = pairs()
    for name, function in (("si_sdr", si_sdr), ("usdr", usdr)):
        expected = get_metric(name, sample_rate=RATE).bind(references=references)
        for quality in (oracle(function, references), oracle(get_metric(name, sample_rate=RATE), references)):
            assert (quality.name, quality.kind) == (name, "oracle")
            assert torch.equal(quality(estimates), expected(estimates))
            assert torch.equal(quality.at(torch.tensor([1]))(estimates[1:2]), expected(estimates)[1:2])
    assert oracle(lambda estimate, reference: estimate.sum((1, 2)), references).name == "oracle"


def test_shapes_that_do_not_fit_are_errors_that_say_so() -> None:
    estimates, references = pairs()
    quality = oracle(si_sdr, references)
    with pytest.raises(ValueError, match=r"give the same, or quality.at\(items\)"):
        quality(estimates[:2])
    with pytest.raises(ValueError, match=r"give \(item, source, channel, time\)"):
        quality(estimates[:, 0])


class Peak(Metric):
    """A metric of a user's own: blind, the peak of each item."""

    name, needs_reference, sample_rate = "peak", False, RATE

    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        return estimates.abs().amax((1, 2))


def test_a_metric_of_ones_own_needs_a_score_only() -> None:
    estimates, references = pairs()
    expected = estimates.abs().amax((2, 3)).mean(1)
    assert torch.equal(Peak()(estimates), expected)
    assert torch.equal(Peak().bind(references=references)(estimates), expected)


def test_without_its_package_pesq_is_left_out_by_default_and_an_error_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {"pesq", "pesq_nb"} <= set(default_metrics(RATE))
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert default_metrics(RATE) == [
        name for name in METRIC_NAMES if name not in (*TOGETHER, "pesq", "pesq_nb")
    ]
    message = re.escape('needs the package pesq: pip install "encore-separation[metrics]"')
    for use in (
        lambda: get_metric("pesq_nb", sample_rate=RATE),
        lambda: MetricPanel(["snr", "pesq"], sample_rate=RATE),
        lambda: pesq(torch.ones(RATE), torch.ones(RATE)),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_panel_scores_every_metric_as_it_is_scored_alone() -> None:
    reference = voices(2, 1)
    estimate = reference + noise_like(reference)
    scores = MetricPanel([*METRIC_NAMES, "pesq_wb"], sample_rate=RATE)(estimate, reference)
    assert tuple(scores) == METRIC_NAMES
    for name, values in scores.items():
        expected = get_metric(name, sample_rate=RATE).score(estimate, reference)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)


def test_panel_leaves_oracle_metrics_out_without_a_reference() -> None:
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
    with pytest.raises(ValueError, match=r"names=\[\] is empty"):
        MetricPanel([], sample_rate=RATE)
    with pytest.raises(ValueError, match="workers=-1 is negative"):
        MetricPanel(["snr"], sample_rate=RATE, workers=-1)
