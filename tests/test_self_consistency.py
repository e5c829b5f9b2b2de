"""Blind measures that know no reference: what they say of good and bad estimates, and what they cost."""

from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise
from torch import Tensor

from encore.inference import FixedSchedule, GridSearch, refine
from encore.metrics import GuardedQuality, JointQuality, get_quality
from encore.metrics.self_consistency import SELF_CHECKS, AskingQuality
from encore.models.levels import standardised

RATE, FRAMES = 8000, 6000


def tone(hertz: float) -> Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(FRAMES) / RATE)[None, None]


LOW, HIGH = tone(400.0), tone(2500.0)


def split(mixture: Tensor) -> Tensor:
    """An ideal separator of what lies below 1 kHz and above it."""
    spectrum = torch.fft.rfft(mixture)
    edge = round(1000 / RATE * 2 * (spectrum.shape[-1] - 1))
    low = spectrum.clone()
    low[..., edge:] = 0
    return torch.fft.irfft(torch.stack((low, spectrum - low), dim=1), mixture.shape[-1])


def ask(inputs: Tensor, mixture: Tensor) -> Tensor:
    return split(inputs)[:, 0]


@pytest.mark.parametrize("name", SELF_CHECKS)
def test_leakage_costs_and_so_does_what_was_lost_unless_it_leaves_a_fixed_point(name: str) -> None:
    quality = get_quality(name, sample_rate=RATE).bound_to(ask)
    mixture = LOW + HIGH
    scores = {
        label: float(quality(estimate, mixture=mixture))
        for label, estimate in {
            "right": LOW,
            "some left": LOW + 0.1 * HIGH,
            "much left": LOW + 0.5 * HIGH,
            "some lost": 0.8 * LOW,
        }.items()
    }
    assert scores["right"] > scores["some left"] > scores["much left"]
    if name == "fixed_point":
        assert scores["some lost"] == pytest.approx(scores["right"], abs=1)
    else:
        assert scores["right"] > scores["some lost"]


def test_the_numbers_are_what_they_say() -> None:
    mixture = LOW + HIGH
    fixed, remix, apart = (
        get_quality(name, sample_rate=RATE).bound_to(ask)
        for name in ("fixed_point", "remix_agreement", "disjointness")
    )
    # a tenth of the other's amplitude is missed when the estimate is separated again
    leaky = LOW + 0.1 * HIGH
    expected = 10 * torch.log10(leaky.square().sum() / (0.1 * HIGH).square().sum())
    close(fixed(leaky, mixture=mixture), expected[None], 1e-3)
    # a fifth of the source comes back later
    rest = mixture - 0.8 * LOW
    answer = 0.8 * LOW + split(-rest.roll(round(0.382 * FRAMES), -1))[:, 0]
    expected = 10 * torch.log10((0.8 * LOW).square().sum() / (answer - 0.8 * LOW).square().sum())
    close(remix(0.8 * LOW, mixture=mixture), expected[None], 1e-3)
    assert float(apart(LOW, mixture=mixture)) == pytest.approx(1, abs=0.02)
    assert float(apart(0.5 * mixture, mixture=mixture)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", SELF_CHECKS)
def test_no_item_depends_on_the_others_and_silence_is_no_score(name: str) -> None:
    quality = get_quality(name, sample_rate=RATE).bound_to(ask)
    mixture = torch.cat((LOW + HIGH, noise(1, 1, FRAMES), LOW + HIGH))
    estimate = torch.cat((LOW + 0.2 * HIGH, noise(1, 1, FRAMES, seed=2), torch.zeros_like(LOW)))
    together = quality(estimate, mixture=mixture)
    for item in range(2):
        own = slice(item, item + 1)
        close(quality(estimate[own], mixture=mixture[own]), together[own], 1e-4)
    assert together[2].isnan()


@pytest.mark.parametrize("name", SELF_CHECKS)
def test_what_they_need(name: str) -> None:
    quality = get_quality(name, sample_rate=RATE)
    assert quality.kind == "blind"
    if isinstance(quality, AskingQuality):
        with pytest.raises(ValueError, match="asks a separator"):
            quality(LOW, mixture=LOW)
    with pytest.raises(ValueError, match="mixture=None"):
        quality.bound_to(ask)(LOW)


class Counting:
    """Leaves a tenth of what is high; counts the inputs it is given."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, mixture: Tensor) -> Tensor:
        self.seen += len(mixture)
        low, high = split(mixture).unbind(1)
        return torch.stack((low + 0.1 * high, 0.9 * high), dim=1)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("source", [0, "all"])
@pytest.mark.parametrize("kind", ["alone", "joint", "guarded"])
def test_every_call_is_counted_where_it_belongs(kind: str, source: int | str, lanes: int) -> None:
    alone = get_quality("remix_agreement", sample_rate=RATE)
    quality = {
        "alone": alone,
        "joint": JointQuality([alone, get_quality("disjointness", sample_rate=RATE)]),
        "guarded": GuardedQuality(get_quality("disjointness", sample_rate=RATE), [alone]),
    }[kind]
    separator = Counting()
    mixture = torch.cat((LOW + HIGH, 0.3 * LOW + HIGH, noise(1, 1, FRAMES)))
    options = {"search": GridSearch(3), "steps": 3, "quality": quality, "source": source, "lanes": lanes}
    found = refine(separator, mixture, max_batch=2, **options)
    assert int(found.evaluations.sum()) == separator.seen
    for item in range(3):
        separator.seen = 0
        own = refine(separator, mixture[item : item + 1], max_batch=2, **options)
        assert int(own.evaluations) == separator.seen == int(found.evaluations[item])


def test_under_the_guide_what_was_left_is_taken_out() -> None:
    separator, mixture = Counting(), LOW + HIGH
    quality = get_quality("remix_agreement", sample_rate=RATE)
    found = refine(separator, mixture, search=GridSearch(4, include_estimate=True), steps=5, quality=quality)
    first, last = ((found_y - LOW).norm() for found_y in (found.one_step, found.estimate))
    assert float(last) < 0.2 * float(first)


def test_a_separator_that_leaves_levels_to_its_caller_is_asked_at_the_mixtures_level() -> None:
    heard: list[Tensor] = []

    def listening(mixture: Tensor) -> Tensor:
        heard.append(mixture)
        return split(mixture)

    mixture = 0.05 * (LOW + HIGH) + 0.2
    quality = get_quality("fixed_point", sample_rate=RATE)
    refine(listening, mixture, search=GridSearch(1), steps=0, quality=quality, standardise=True)
    _, mean, deviation = standardised(mixture)
    estimate = split((mixture - mean) / deviation)[:, 0] * deviation + mean
    close(heard[1], (estimate - mean) / deviation, 1e-4)


def test_sources_in_any_order_cannot_be_asked_for() -> None:
    quality = get_quality("fixed_point", sample_rate=RATE)
    with pytest.raises(ValueError, match="asks for a source by its place"):
        refine(
            split,
            LOW,
            search=FixedSchedule([0.5]),
            quality=quality,
            source="all",
            interchangeable=True,
        )
