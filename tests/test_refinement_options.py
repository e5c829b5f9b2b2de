"""Filters after, and noise before, the separator in the refinement loop."""

from __future__ import annotations

import math

import pytest
import torch
from separator_toys import close, noise
from torch import Generator, Tensor

from encore.inference import FixedSchedule, GridSearch, SlopeSearch, refine
from encore.inference.refinement_run import Noise
from encore.metrics import get_quality

SI_SDR = get_quality("si_sdr", sample_rate=8000)


def squash(mixture: Tensor) -> Tensor:
    kept = torch.tanh(mixture)
    return torch.stack((kept, mixture - kept), dim=1)


def halved_where_far(estimates: Tensor, inputs: Tensor) -> Tensor:
    return torch.where((estimates - inputs).abs() > 0.5, 0.5 * estimates, estimates)


@pytest.mark.parametrize("source", [0, "all"])
def test_the_filter_sees_every_estimate_with_what_it_was_separated_from(source: int | str) -> None:
    mixture = 8 * noise(2, 1, 200)
    found = refine(
        squash,
        mixture,
        source=source,
        search=FixedSchedule([0.3, 0.6]),
        post_filter=halved_where_far,
        keep_trajectory=True,
    )
    for index in (0, 1) if source == "all" else (0,):
        estimate = halved_where_far(squash(mixture)[:, index], mixture)
        for step, beta in enumerate((0.0, 0.3, 0.6)):
            blend = (1 - beta) * mixture + beta * estimate
            estimate = halved_where_far(squash(blend)[:, index], blend) if step else estimate
            own = found.trajectory[step][:, index] if source == "all" else found.trajectory[step]
            close(own, estimate, 1e-6)


def test_noise_has_the_deviation_of_a_brownian_bridge_and_none_at_its_ends() -> None:
    mixture = torch.cat((noise(1, 2, 50_000), 10 * noise(1, 2, 50_000)))
    drawn = Noise(0.5, mixture, 1, Generator().manual_seed(3))
    drawn.draw()
    items = torch.tensor([0, 1])
    for ratio in (0.1, 0.5, 0.8):
        deviation = drawn(0, items, torch.full((2,), ratio)).std(dim=(1, 2))
        level = mixture.square().mean(dim=(1, 2)).sqrt()
        close(deviation, 0.5 * math.sqrt(ratio * (1 - ratio)) * level, 0.01)
    for ratio in (0.0, 1.0):
        assert not drawn(0, items, torch.full((2,), ratio)).any()


def test_noise_goes_into_the_blends_is_new_in_every_step_and_the_same_for_all_candidates() -> None:
    seen: list[Tensor] = []

    def listening(mixture: Tensor) -> Tensor:
        seen.extend(mixture)
        return 0.5 * mixture[:, None]

    mixture = noise(1, 1, 1000)
    refine(
        listening,
        mixture,
        search=GridSearch(2, include_estimate=False),
        steps=2,
        quality=SI_SDR,
        reference=noise(1, 1, 1000, seed=5),
        keep_previous=False,
        noise=0.3,
        generator=Generator().manual_seed(0),
    )
    # share 1 is known; one blend at share 1/2 in either step
    expected = Generator().manual_seed(0)
    level = 0.3 * 0.5 * mixture.square().mean().sqrt()
    first = seen[1] - 0.75 * mixture[0]
    close(first, level * torch.randn(1, 1, 1000, generator=expected)[0], 1e-4)
    assert len(seen) == 3
    assert not torch.equal(seen[1], seen[2])


def test_an_item_under_noise_does_not_depend_on_the_others() -> None:
    mixture, reference = noise(3, 1, 500), noise(3, 1, 500, seed=9)
    options = {"search": GridSearch(3), "steps": 3, "quality": SI_SDR, "noise": 0.2}
    together = refine(squash, mixture, reference=reference, generator=Generator().manual_seed(1), **options)
    for item in range(3):
        own = slice(item, item + 1)
        alone = refine(
            squash, mixture[own], reference=reference[own], generator=Generator().manual_seed(1), **options
        )
        close(together.estimate[own], alone.estimate, 1e-5)
    assert (together.scores.diff(dim=0) >= 0).all()


def test_no_item_finishes_early_under_noise() -> None:
    mixture = noise(1, 1, 500)
    options = {"search": GridSearch(3), "steps": 4, "quality": SI_SDR, "reference": mixture}
    assert int(refine(lambda x: x[:, None], mixture, **options).evaluations) == 3
    noisy = refine(lambda x: x[:, None], mixture, noise=0.2, generator=Generator(), **options)
    assert int(noisy.evaluations) == 1 + 4 * 2


def test_noise_that_cannot_be() -> None:
    mixture = noise(1, 1, 50)
    with pytest.raises(ValueError, match=r"noise=-1\.0"):
        refine(squash, mixture, search=FixedSchedule([0.5]), noise=-1.0)
    with pytest.raises(ValueError, match=r"noise=0\.1: .* endpoint form"):
        refine(squash, mixture, search=FixedSchedule([0.5]), noise=0.1, blend="state")
    with pytest.raises(ValueError, match="without slopes"):
        refine(squash, mixture, search=SlopeSearch(), quality=SI_SDR, reference=mixture, noise=0.1)
    with pytest.raises(ValueError, match="generator=None"):
        refine(squash, mixture, search=FixedSchedule([0.5]), noise=0.1)


def test_the_linear_schedule_of_either_form_has_the_same_blends_of_a_separator_that_is_right() -> None:
    target, mixture = noise(1, 1, 100), noise(1, 1, 100) + noise(1, 1, 100, seed=1)
    seen: dict[str, list[Tensor]] = {"endpoint": [], "state": []}
    for form, schedule in (
        ("endpoint", FixedSchedule.linear(5)),
        ("state", FixedSchedule.linear_state(5)),
    ):

        def knowing(x: Tensor, seen: list[Tensor] = seen[form]) -> Tensor:
            seen.append(x)
            return target[:, None]

        refine(knowing, mixture, search=schedule, blend=form)
    assert len(seen["endpoint"]) == 5
    for endpoint, state in zip(seen["endpoint"], seen["state"], strict=True):
        close(state, endpoint, 1e-5)
