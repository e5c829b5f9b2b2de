"""Self-consistency metrics: what they say of good and bad estimates, and what they cost."""

from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise
from torch import Tensor

from encore.inference import GridSearch, refine
from encore.inference.wrappers import at_level_of
from encore.metrics import SELF_CONSISTENCY_METRICS, Metric, get_metric, guarded, joint
from encore.models.levels import normalized

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


def metric(name: str) -> Metric:
    return get_metric(name, sample_rate=RATE)


def scores(name: str, low: Tensor, mixture: Tensor) -> Tensor:
    """The metric's scores of estimates of what is low."""
    quality = metric(name).bind(mixture=mixture, separate=split)
    return quality.per_source(torch.stack((low, mixture - low), dim=1))[:, 0]


@pytest.mark.parametrize("name", SELF_CONSISTENCY_METRICS)
def test_leakage_costs_and_so_does_what_was_lost_unless_it_leaves_a_fixed_point(name: str) -> None:
    estimates = torch.cat((LOW, LOW + 0.1 * HIGH, LOW + 0.5 * HIGH, 0.8 * LOW))
    right, some_left, much_left, some_lost = scores(name, estimates, (LOW + HIGH).expand(4, -1, -1)).tolist()
    assert right > some_left > much_left
    if name == "fixed_point":
        assert some_lost == pytest.approx(right, abs=1)
    else:
        assert right > some_lost


def test_the_numbers_are_what_they_say() -> None:
    mixture = LOW + HIGH
    # a tenth of the other's amplitude is missed when the estimate is separated again
    leaky = LOW + 0.1 * HIGH
    expected = 10 * torch.log10(leaky.square().sum() / (0.1 * HIGH).square().sum())
    close(scores("fixed_point", leaky, mixture), expected[None], 1e-3)
    # a fifth of the source comes back later
    rest = mixture - 0.8 * LOW
    answer = 0.8 * LOW + split(-rest.roll(round(0.382 * FRAMES), -1))[:, 0]
    expected = 10 * torch.log10((0.8 * LOW).square().sum() / (answer - 0.8 * LOW).square().sum())
    close(scores("remix_agreement", 0.8 * LOW, mixture), expected[None], 1e-3)
    assert float(scores("disjointness", LOW, mixture)) == pytest.approx(1, abs=0.02)
    assert float(scores("disjointness", 0.5 * mixture, mixture)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", SELF_CONSISTENCY_METRICS)
def test_every_source_is_scored_as_itself(name: str) -> None:
    mixture = LOW + HIGH
    estimates = split(mixture + 0.1 * noise(1, 1, FRAMES))
    quality = metric(name).bind(mixture=mixture, separate=split)
    swapped = metric(name).bind(mixture=mixture, separate=lambda inputs: split(inputs).flip(1))
    close(swapped.per_source(estimates.flip(1)).flip(1), quality.per_source(estimates))
    assert torch.equal(quality(estimates), quality.per_source(estimates).mean(1))


class Gained:
    """Separates items by gains of their own, a tensor with a row per item."""

    def __init__(self, gains: Tensor) -> None:
        self.gains = gains

    def __call__(self, inputs: Tensor) -> Tensor:
        assert len(inputs) == len(self.gains)
        return split(inputs) * self.gains

    def at(self, items: Tensor) -> Gained:
        return Gained(self.gains[items])


@pytest.mark.parametrize("name", SELF_CONSISTENCY_METRICS)
def test_the_separator_is_called_for_the_items_that_are_scored(name: str) -> None:
    mixture = torch.cat((LOW + HIGH, 0.3 * LOW + HIGH, LOW - HIGH))
    quality = metric(name).bind(mixture=mixture, separate=Gained(torch.rand(3, 2, 1, 1)))
    estimates = split(mixture + noise(3, 1, FRAMES))
    items = torch.tensor([2, 0])
    close(quality.at(items)(estimates[items]), quality(estimates)[items])
    close(quality.at(items).at(items[1:])(estimates[2:]), quality(estimates)[2:])


@pytest.mark.parametrize("name", SELF_CONSISTENCY_METRICS)
def test_what_they_need(name: str) -> None:
    own, signals = metric(name), {"mixture": LOW, "separate": split}
    assert own.kind == own.bind(**signals).kind == "blind"
    for lacking in own.needs:
        others = own.bind(**signals).replace(signals={n: x for n, x in signals.items() if n != lacking})
        for use in (lambda: others(split(LOW)), others.bind):  # noqa: B023
            with pytest.raises(ValueError, match=f"{lacking}=None: '{name}' needs it, use metric.bind"):
                use()
    if own.separator_calls:
        with pytest.raises(ValueError, match=f"separate returns 2 sources, but '{name}' scores 1: give"):
            own.bind(**signals)(split(LOW)[:, :1])


class Counting:
    """Leaves a tenth of what is high; counts its inputs; returns the first sources."""

    def __init__(self, sources: int = 2) -> None:
        self.seen, self.sources = 0, sources

    def __call__(self, mixture: Tensor) -> Tensor:
        self.seen += len(mixture)
        low, high = split(mixture).unbind(1)
        return torch.stack((low + 0.1 * high, 0.9 * high), dim=1)[:, : self.sources]


def steering(kind: str) -> Metric:
    alone, other = metric("remix_agreement"), metric("disjointness")
    return {
        "alone": lambda: alone,
        "joint": lambda: joint([alone, other]),
        "guarded": lambda: guarded(other, [alone]),
        "nested": lambda: guarded(joint([alone, other]), [metric("fixed_point")]),
    }[kind]()


KINDS = ["alone", "joint", "guarded", "nested"]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_comparisons_cost_the_calls_that_they_state(kind: str) -> None:
    separator, mixture = Counting(), torch.cat((LOW + HIGH, 0.3 * LOW + HIGH, noise(1, 1, FRAMES)))
    estimates = split(mixture)
    quality = steering(kind).bind(mixture=mixture, separate=separator)
    assert quality.separator_calls == steering(kind).separator_calls > 0
    one_step_calls = quality.one_step_calls
    quality = quality.relative_to(0.9 * estimates)
    assert separator.seen == one_step_calls * estimates[:, :, 0, 0].numel()
    for items in (torch.arange(3), torch.tensor([1, 1])):
        separator.seen = 0
        quality.at(items)(estimates[items])
        assert separator.seen == quality.separator_calls * 2 * len(items)


def test_under_the_guide_what_was_left_is_taken_out() -> None:
    search = GridSearch(steps=5, candidates=4, include_estimate=True)
    found = refine(Counting(1), LOW + HIGH, metric("remix_agreement"), search)
    first, last = ((estimates - LOW).norm() for estimates in (found.one_step, found.estimates))
    assert float(last) < 0.2 * float(first)


def test_a_separator_that_leaves_levels_to_its_caller_is_called_at_the_mixtures_level() -> None:
    inputs: list[Tensor] = []

    def recording(mixture: Tensor) -> Tensor:
        inputs.append(mixture)
        return split(mixture)

    mixture = 0.05 * (LOW + HIGH) + 0.2
    quality = metric("fixed_point").bind(mixture=mixture, separate=at_level_of(recording, mixture))
    _, mean, deviation = normalized(mixture)
    estimates = split((mixture - mean) / deviation) * deviation[:, None] + mean[:, None]
    quality(estimates)
    for k in range(2):
        close(inputs[k], (estimates[:, k] - mean) / deviation, 1e-4)
