from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from draws import check_frequency, seeded
from torch import Tensor

from encore.data.augmentation import (
    random_channel_swap,
    random_equaliser,
    random_pitch,
    random_sign_flip,
    random_speed,
    random_tempo,
)
from encore.data.mixing import batch_remix, components_of, random_gains, random_snr
from encore.lightning_modules.data_mixing import DataMixing
from encore.lightning_modules.schedules import warmup_cosine

COUNT = 4000


def signals(batch: int = COUNT, sources: int = 2, time: int = 6) -> tuple[Tensor, Tensor]:
    components = torch.randn(batch, sources + 1, 1, time, generator=seeded(5))
    return components.sum(1), components[:, :sources]


def never(mixture: Tensor) -> Tensor:
    raise AssertionError("the separator was called")


def mix(policy: DataMixing, batch: tuple[Tensor, Tensor], separate=never, seed: int = 0, **options):
    return policy(*batch, separate=separate, generator=seeded(seed), **options)


def gains_of(references: Tensor, before: Tensor) -> Tensor:
    """Gain of every reference ``(b, s)``, each a scaled copy of what it was."""
    gains = (references * before).sum((2, 3)) / before.square().sum((2, 3))
    torch.testing.assert_close(references, gains[:, :, None, None] * before, rtol=1e-4, atol=1e-5)
    return gains


def test_with_everything_off_nothing_changes() -> None:
    mixture, references = signals()
    mixed, kept = mix(DataMixing(), (mixture, references))
    torch.testing.assert_close(mixed, mixture, rtol=1e-6, atol=1e-6)
    assert torch.equal(kept, references)


def test_the_seed_decides_and_the_batch_is_not_written_to() -> None:
    batch = signals(20)
    before = [signal.clone() for signal in batch]
    policy = DataMixing(
        remix=True, gain_db=(-6, 6), snr_db=(-5, 15), linear_path=0.4, estimate_path=0.4, ratio_beta=2.0
    )
    first, again, other = (
        mix(policy, batch, lambda x: 0.3 * x[:, None].repeat(1, 2, 1, 1), s) for s in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


def test_the_linear_path_moves_its_fraction_of_items_and_either_source() -> None:
    mixture, references = signals()
    mixed, targets = mix(DataMixing(linear_path=0.3, ratio_beta=2.0), (mixture, references))
    gains = gains_of(targets, references)
    moved = (gains - 1).abs().amax(1) > 1e-4
    check_frequency(moved, 0.3)
    check_frequency(moved & ((gains[:, 0] - 1).abs() < 1e-4), 0.15)
    ratio = gains[moved].amin(1)
    assert ratio.mean() == pytest.approx(2 / 3, abs=4 * math.sqrt(1 / 18 / len(ratio)))
    # what the mixture holds besides the references shrinks with them
    residual = components_of(mixed, targets)[:, 2]
    before = components_of(mixture, references)[:, 2]
    torch.testing.assert_close(residual, gains.amin(1)[:, None, None] * before, rtol=1e-3, atol=1e-4)


def test_the_estimate_path_separates_only_its_items() -> None:
    mixture, references = signals()
    seen = []

    def separate(inputs: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(inputs)
        return torch.zeros(len(inputs), 2, 1, 6) + torch.tensor([1000.0, -1000.0])[None, :, None, None]

    mixed, targets = mix(DataMixing(linear_path=0.2, estimate_path=0.5), (mixture, references), separate)
    assert len(seen) == 1
    far = (mixed - mixture).abs().mean((1, 2)) > 30
    check_frequency(far, 0.5)
    # those with less than about 0.03 of the estimate look as if they had none
    rows = [int((mixture == inputs).all((1, 2)).nonzero()) for inputs in seen[0]]
    chosen = torch.zeros(COUNT, dtype=torch.bool)
    chosen[rows] = True
    check_frequency(chosen, 0.5)
    assert (chosen | ~far).all()
    gains = gains_of(targets, references)
    check_frequency(~chosen & ((gains - 1).abs().amax(1) > 1e-4), 0.2)
    # the blend is r x_0 + (1 - r) y, with r the gain of the source that is not refined
    ratio, kept = gains[chosen].min(1)
    estimate = torch.where(kept == 1, 1000.0, -1000.0)
    expected = ratio[:, None, None] * mixture[chosen] + ((1 - ratio) * estimate)[:, None, None]
    torch.testing.assert_close(mixed[chosen], expected, rtol=1e-4, atol=1e-2)


def test_estimates_are_those_of_the_new_mixture() -> None:
    """Remixed, scaled and only then separated."""
    batch = signals(8)
    seen = []

    def separate(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs[:, None].repeat(1, 2, 1, 1)

    augmentation = {"remix": True, "gain_db": (-12, 0), "snr_db": (0, 10)}
    mixed, _ = mix(DataMixing(**augmentation, estimate_path=1.0), batch, separate)
    plain, _ = mix(DataMixing(**augmentation), batch)
    torch.testing.assert_close(seen[0], plain)
    torch.testing.assert_close(mixed, plain)  # blends of a mixture with itself


AUGMENTATIONS: dict[str, tuple[Callable[..., Tensor], Any]] = {
    "speed": (random_speed, (0.8, 1.25)),
    "equaliser_db": (random_equaliser, 6.0),
    "pitch_semitones": (random_pitch, (-3, 3)),
    "tempo": (random_tempo, (0.8, 1.25)),
    "channel_swap": (random_channel_swap, 0.5),
    "sign_flip": (random_sign_flip, 0.5),
    "remix": (lambda components, _, generator: batch_remix(components, generator=generator), True),
    "gain_db": (random_gains, (-10, 10)),
    "snr_db": (random_snr, (3, 9)),
}
"""Functions and options in the order in which they are applied."""


@pytest.mark.parametrize("names", [*[(name,) for name in AUGMENTATIONS], tuple(AUGMENTATIONS)])
def test_augmentations_come_in_their_order_and_components_sum_to_the_mixture(names: tuple[str, ...]) -> None:
    components = torch.randn(6, 3, 2, 2000, generator=seeded(5))
    batch, generator = (components.sum(1), components[:, :2]), seeded(0)
    expected = components_of(*batch)
    for name in names:
        augment, option = AUGMENTATIONS[name]
        expected = augment(expected, option, generator=generator)
    mixed, targets = mix(DataMixing(**{name: AUGMENTATIONS[name][1] for name in names}), batch)
    assert torch.equal(targets, expected[:, :2])
    torch.testing.assert_close(mixed, expected.sum(1), rtol=0, atol=1e-4)
    assert not torch.allclose(mixed, batch[0], atol=0.1)


def test_gradient_goes_through_weights_used_without_gradient_first() -> None:
    """Mixed precision keeps cast weights for the whole step, which must not be those of the estimate path."""
    layer = torch.nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = mix(DataMixing(estimate_path=1.0), signals(3, 1), lambda x: layer(x)[:, None])
        loss = layer(mixed).square().sum()
    loss.backward()
    assert layer.weight.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear_path": 0.6, "estimate_path": 0.5}, "linear_path=0.6 and estimate_path=0.5"),
        ({"linear_path": -0.1}, "linear_path=-0.1"),
        ({"estimate_path": -0.1}, "estimate_path=-0.1"),
        ({"ratio_beta": 0.0}, "ratio_beta=0.0: give 0 or more, and a positive number"),
        ({"unroll": -1}, "unroll=-1"),
        ({"first_weight": -0.5, "unroll": 1}, "first_weight=-0.5: give 0 or more"),
        ({"first_weight": 0.0}, "first_weight=0.0: give 0 or more, above 0 if unroll=0"),
        ({"candidates": 0}, "candidates=0"),
        ({"channel_swap": 1.5}, "channel_swap=1.5: give a fraction from 0 to 1"),
        ({"sign_flip": -0.5}, "sign_flip=-0.5: give a fraction from 0 to 1"),
        ({"tempo": (0.0, 1.0)}, "tempo=(0.0, 1.0): give positive values, the lower one first"),
        ({"tempo": (1.2, 0.8)}, "tempo=(1.2, 0.8): give positive values, the lower one first"),
        ({"speed": (1.2, 0.8)}, "speed=(1.2, 0.8): give positive values, the lower one first"),
        ({"equaliser_db": -1.0}, "equaliser_db=-1.0"),
        ({"pitch_semitones": (2, -2)}, "pitch_semitones=(2, -2): give two values, the lower one first"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        DataMixing(**options)
    assert "\n" not in str(error.value)


def rates(steps: int, count: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = warmup_cosine(optimizer, steps=steps, **options)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    found = rates(40, 56, warmup=4, floor=0.1)
    assert found[:5] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5], rel=1e-12)
    # a quarter, half, three quarters and the whole of the way down from 0.5 to 0.05
    down = [0.275 + 0.225 * cosine for cosine in (math.sqrt(0.5), 0.0, -math.sqrt(0.5), -1.0)]
    assert [found[step] for step in (13, 22, 31, 40)] == pytest.approx(down, rel=1e-12)
    assert found[40:] == pytest.approx([0.05] * 16, rel=1e-12)
    assert (torch.tensor(found[4:41]).diff() < 0).all()
    assert rates(10, 11, warmup=1)[-1] == pytest.approx(0.01)


def test_the_rise_takes_at_most_a_tenth_of_the_steps() -> None:
    assert rates(40, 45, warmup=50) == rates(40, 45, warmup=4)
    assert rates(9, 3, warmup=50) == rates(9, 3, warmup=0)
    assert rates(9, 1, warmup=50) == [0.5]
    with pytest.raises(ValueError, match=r"steps=-1: set trainer\.max_steps"):
        rates(-1, 1, warmup=50)


def test_speakers_in_another_order_are_blended_with_their_own_references() -> None:
    batch, policy = signals(40), DataMixing(estimate_path=1.0)
    estimates = 0.9 * batch[1]
    swapped = torch.cat((estimates[:20].flip(1), estimates[20:]))
    ordered = mix(policy, batch, lambda _: estimates)
    found = mix(policy, batch, lambda _: swapped, interchangeable=True)
    assert torch.equal(found[0], ordered[0])
    assert torch.equal(found[1], ordered[1])
    assert not torch.equal(mix(policy, batch, lambda _: swapped)[0], ordered[0])
