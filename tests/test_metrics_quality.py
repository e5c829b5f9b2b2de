"""Metrics by name, the qualities that they are bound to, and panels of metrics."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
import torch
import torchaudio
from speech_toys import RATE, noisy, voices
from torch import Tensor

from encore.metrics import (
    METRIC_NAMES,
    Metric,
    MetricPanel,
    default_metrics,
    dnsmos,
    get_metric,
    oracle,
    pesq,
    si_sdr,
    table,
    usdr,
)

MUSIC = ("usdr", "csdr")
REFERENCES = voices(3, 2, 2)
ESTIMATES = noisy(REFERENCES)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("pesq", 0.05), ("pesq_nb", 0.05), ("stoi", 0.005), ("dnsmos_ovrl", 0.05)]
)
def test_audio_of_a_higher_rate_is_scored_at_the_metric_s_own(name: str, tolerance: float) -> None:
    pair = ESTIMATES[:1, 0], REFERENCES[:1, 0]
    at_48k = [
        torchaudio.functional.resample(x.contiguous(), RATE, 48000, lowpass_filter_width=64) for x in pair
    ]
    low = get_metric(name, sample_rate=RATE).score(*pair)
    high = get_metric(name, sample_rate=48000).score(*at_48k)
    assert high.item() == pytest.approx(low.item(), abs=tolerance)


def test_slices_and_mixed_precision_around_it_do_not_change_what_is_resampled() -> None:
    metric = get_metric("pesq_nb", sample_rate=RATE)
    expected = metric.score(ESTIMATES[:, 1].contiguous(), REFERENCES[:, 1].contiguous())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric.score(ESTIMATES[:, 1], REFERENCES[:, 1]), expected)


def test_odd_rates_are_scored() -> None:
    reference = voices(1, 1, rate=44100)
    panel = MetricPanel(METRIC_NAMES, sample_rate=44100)
    assert all(score.isfinite() for score in panel(noisy(reference), reference).values())


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("sisdr", RATE, "name='sisdr' is no known metric: use one of 'si_sdr'"),
        ("remix_agrement", RATE, "use one of 'remix_agreement'"),
        ("nisqa", RATE, "use one of 'nisqa_mos'"),
        ("pesq_bn", RATE, "use one of 'pesq_nb'"),
        ("pesq", 8000, "sample_rate=8000 is below the 16000 Hz that 'pesq' needs: use 'pesq_nb'"),
        ("dnsmos_bak", 8000, "sample_rate=8000 is below the 16000 Hz that 'dnsmos_bak' needs"),
        ("estoi", 8000, "sample_rate=8000 is below the 10000 Hz that 'estoi' needs"),
        ("pesq_nb", 4000, "sample_rate=4000 is below the 8000 Hz that 'pesq_nb' needs"),
        ("squim_pesq", 8000, "sample_rate=8000 is below the 16000 Hz that 'squim_pesq' needs"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_so(name: str, rate: int, message: str) -> None:
    for use in (get_metric, lambda name, **options: MetricPanel(["snr", name], **options)):
        with pytest.raises(ValueError, match=re.escape(message)):
            use(name, sample_rate=rate)


def test_an_oracle_is_made_of_a_metric_or_of_any_function() -> None:
    for name, function in (("si_sdr", si_sdr), ("usdr", usdr)):
        expected = get_metric(name, sample_rate=RATE).bind(references=REFERENCES)
        for quality in (oracle(function, REFERENCES), oracle(get_metric(name, sample_rate=RATE), REFERENCES)):
            assert (quality.name, quality.kind) == (name, "oracle")
            assert torch.equal(quality(ESTIMATES), expected(ESTIMATES))
            assert torch.equal(quality.at(torch.tensor([1]))(ESTIMATES[1:2]), expected(ESTIMATES)[1:2])
    assert oracle(lambda estimate, reference: estimate.sum((1, 2)), REFERENCES).name == "oracle"


def test_a_metric_of_ones_own_is_a_function_with_a_name() -> None:
    peak = Metric(name="peak", function=lambda estimates: estimates.abs().amax((1, 2)), sample_rate=RATE)
    expected = ESTIMATES.abs().amax((2, 3)).mean(1)
    for quality in (peak, peak.bind(), peak.bind(references=REFERENCES), peak.relative_to(ESTIMATES)):
        assert torch.equal(quality(ESTIMATES), expected)
    assert peak(ESTIMATES.double()).dtype == torch.float32


def test_without_its_package_pesq_is_left_out_by_default_and_an_error_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {"pesq", "pesq_nb"} <= set(default_metrics(RATE))
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert default_metrics(RATE) == [name for name in METRIC_NAMES if name not in (*MUSIC, "pesq", "pesq_nb")]
    message = re.escape('needs the package pesq: pip install "encore-separation[metrics]"')
    for use in (
        lambda: get_metric("pesq_nb", sample_rate=RATE),
        lambda: MetricPanel(["snr", "pesq"], sample_rate=RATE),
        lambda: pesq(torch.ones(RATE), torch.ones(RATE)),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_metrics_of_music_are_a_default_for_stereo_only_and_blind_ones_without_a_reference() -> None:
    assert set(MUSIC) <= set(default_metrics(44100, 2))
    assert not set(MUSIC) & set(default_metrics(44100, 1))
    assert not default_metrics(8000, 2, has_reference=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_panel_scores_every_metric_as_it_is_scored_alone(workers: int) -> None:
    pair = ESTIMATES[:2, 0], REFERENCES[:2, 0]
    scores = MetricPanel([*METRIC_NAMES, "pesq_wb"], sample_rate=RATE, workers=workers)(*pair)
    assert tuple(scores) == METRIC_NAMES
    for name, values in scores.items():
        expected = get_metric(name, sample_rate=RATE).score(*pair)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)


def test_panel_leaves_oracle_metrics_out_without_a_reference() -> None:
    scores = MetricPanel(["si_sdr", "dnsmos_p808"], sample_rate=RATE)(ESTIMATES[:, 0])
    assert list(scores) == ["dnsmos_p808"]
    assert scores["dnsmos_p808"].shape == (3,)


def test_panel_runs_each_network_once_also_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(own: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        def score(estimates: Tensor, names: tuple[str, ...], sample_rate: int = RATE) -> dict[str, Tensor]:
            calls.append(tuple(names))
            return own(estimates, names=names)

        return score

    def constant(estimates: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        return {name: torch.full(estimates.shape[:2], float(len(name))) for name in names}

    own, published = counted(dnsmos), counted(constant)
    for name in ("dnsmos_sig", "dnsmos_ovrl"):
        monkeypatch.setitem(table.TABLE, name, table.Row(own, needs=(), rate=RATE))
    for name in ("squim_stoi", "squim_pesq"):
        monkeypatch.setitem(table.TABLE, name, table.Row(published, needs=()))
    names = ["dnsmos_sig", "squim_stoi", "snr", "dnsmos_ovrl", "squim_pesq"]
    scores = MetricPanel(names, sample_rate=RATE)(ESTIMATES[:1, 0], REFERENCES[:1, 0])
    assert list(scores) == names
    assert calls == [("dnsmos_sig", "dnsmos_ovrl"), ("squim_stoi", "squim_pesq")]
    assert scores["squim_stoi"].tolist() == [10.0]
