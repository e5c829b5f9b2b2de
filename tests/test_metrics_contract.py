"""What holds for every metric of the table, by its name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torchaudio
from speech_toys import RATE, noisy, voices
from torch import Tensor

from encore.metrics import (
    METRIC_NAMES,
    SELF_CONSISTENCY_METRICS,
    csdr,
    dnsmos,
    estoi,
    get_metric,
    pesq,
    sdr,
    si_sdr,
    snr,
    stoi,
    usdr,
)
from encore.metrics.table import TABLE

REFERENCES = voices(3, 2, 2)
"""Three items, two sources, two channels."""
NAMES = [*METRIC_NAMES, *SELF_CONSISTENCY_METRICS]
TOGETHER = (
    "usdr",
    "csdr",
    *SELF_CONSISTENCY_METRICS,
)  # channels are taken together: one of two may be silent
ANY_GAIN = ("si_sdr", "sdr", "pesq", "pesq_nb", "stoi", "estoi", "dnsmos_p808", "fixed_point")


def split(mixture: Tensor) -> Tensor:
    """A separator of what lies below 500 Hz and above it."""
    spectrum = torch.fft.rfft(mixture)
    low = spectrum.clone()
    low[..., round(500 / RATE * mixture.shape[-1]) :] = 0
    return torch.fft.irfft(torch.stack((low, spectrum - low), dim=1), mixture.shape[-1])


def ideal(name: str) -> Tensor:
    """Estimates that a metric likes best."""
    return split(REFERENCES[:, 0]) if name in SELF_CONSISTENCY_METRICS else REFERENCES


def scores(name: str, estimates: Tensor, items: slice = slice(None)) -> Tensor:
    """Scores ``(b, s)`` of estimates of the items."""
    references = ideal(name)[items]
    mixture = references.sum(1)
    return (
        get_metric(name, sample_rate=RATE)
        .bind(references=references, mixture=mixture, separate=split)
        .per_source(estimates)
    )


@cache
def score_of_noisy(name: str) -> Tensor:
    return scores(name, noisy(ideal(name)))


@pytest.mark.parametrize("name", NAMES)
def test_noise_costs_and_silence_and_broken_samples_have_no_score(name: str) -> None:
    own, some, much = scores(name, ideal(name)), score_of_noisy(name), scores(name, noisy(ideal(name), 0.1))
    # a noise 14 dB below speech does not always change how the speech itself is rated
    assert own.mean() > some.mean() if name == "dnsmos_sig" else (own > some).all()
    assert (some.mean(1) > much.mean(1)).all()
    spoiled = noisy(ideal(name))
    spoiled[0] = 0  # a separator that returns zeros loses
    spoiled[1, 0, 0, 100] = torch.nan
    spoiled[1, 1, 0] = 0
    if name in SELF_CONSISTENCY_METRICS:
        spoiled[1, 0] = noisy(ideal(name))[1, 0]
    found = scores(name, spoiled)
    assert found[:2].isnan().tolist() == [
        [True, True],
        [name not in SELF_CONSISTENCY_METRICS, name not in TOGETHER],
    ]
    torch.testing.assert_close(found[2], some[2], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if get_metric(name, sample_rate=RATE).kind == "oracle"]
)
def test_a_silent_or_broken_reference_has_no_score(name: str) -> None:
    references = REFERENCES[:, :1].clone()
    references[0], references[1, 0, 1, -1] = 0, torch.inf
    metric = get_metric(name, sample_rate=RATE)
    found = metric.bind(references=references)(noisy(REFERENCES)[:, :1])
    assert found.isnan().tolist() == [True, True, False]
    torch.testing.assert_close(found[2], score_of_noisy(name)[2, 0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("dnsmos_sig", "dnsmos_bak")])
def test_no_item_depends_on_another_and_a_quality_may_be_taken_at_items_copied_and_sent(name: str) -> None:
    estimates, expected = noisy(ideal(name)), score_of_noisy(name)
    assert expected.unique().numel() == 6
    one = slice(1, 2)
    torch.testing.assert_close(scores(name, estimates[one], one), expected[one], rtol=1e-5, atol=0)
    metric = get_metric(name, sample_rate=RATE)
    quality = metric.bind(references=ideal(name), mixture=ideal(name).sum(1), separate=split)
    assert (quality.name, quality.kind, quality.scale) == (name, metric.kind, metric.scale)
    assert quality.differentiable == metric.differentiable
    assert quality.relative_to(0.5 * estimates) is quality
    found = quality.per_source(estimates)
    assert torch.equal(quality(estimates), found.mean(1))
    items = torch.tensor([2, 0, 2])
    torch.testing.assert_close(
        quality.at(items).per_source(estimates[items]), found[items], rtol=1e-5, atol=0
    )
    again = quality.at(items).at(torch.tensor([1]))
    for other in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        torch.testing.assert_close(other.per_source(estimates[:1]), found[:1], rtol=1e-5, atol=0)


def at_8k(signal: Tensor) -> Tensor:
    return torchaudio.functional.resample(signal.contiguous(), RATE, 8000)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "si_sdr": si_sdr,
    "sdr": sdr,
    "snr": snr,
    "usdr": usdr,
    "csdr": lambda estimate, reference: csdr(estimate, reference, sample_rate=RATE),
    "pesq": pesq,
    "pesq_nb": lambda estimate, reference: pesq(at_8k(estimate), at_8k(reference), mode="nb"),
    "stoi": lambda estimate, reference: stoi(estimate, reference, sample_rate=RATE),
    "estoi": lambda estimate, reference: estoi(estimate, reference, sample_rate=RATE),
}


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_named_metric_is_the_mean_of_its_function_over_channels(name: str) -> None:
    blind = lambda estimate, _: dnsmos(estimate, names=(name,))[name]  # noqa: E731
    estimate, reference = noisy(REFERENCES)[:, 0], REFERENCES[:, 0]
    expected = FUNCTIONS.get(name, blind)(estimate, reference)
    expected = expected if name in TOGETHER else expected.mean(-1)
    torch.testing.assert_close(score_of_noisy(name)[:, 0], expected, rtol=1e-5, atol=0)
    assert get_metric(name, sample_rate=RATE).kind == ("blind" if name.startswith("dnsmos") else "oracle")


@pytest.mark.parametrize("name", NAMES)
def test_levels_matter_where_they_should(name: str) -> None:
    quiet = scores(name, 0.1 * noisy(ideal(name)))
    if name in ANY_GAIN:
        torch.testing.assert_close(quiet, score_of_noisy(name), rtol=1e-3, atol=0)
    else:
        assert ((quiet - score_of_noisy(name)).abs() > TABLE[name].scale / 20).all()
