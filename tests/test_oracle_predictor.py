from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise
from torch import Tensor

from encore.inference.oracle_predictor import accompaniment_gain, oracle_predictor
from encore.metrics.reference import si_sdr
from encore.models.separators.contract import AdaptedSeparator
from encore.models.wrappers import Standardised

PUBLISHED = (1, 0.964, 0.923, 0.875, 0.818, 0.75, 0.667, 0.563, 0.429, 0.25)


def leaking(mixture: Tensor) -> Tensor:
    """Separate the first half of the time from the second; a tenth of the whole leaks into either."""
    early = mixture.clone()
    early[..., mixture.shape[-1] // 2 :] = 0
    return torch.stack((early, mixture - early), dim=1) + 0.1 * mixture[:, None]


def sources() -> Tensor:
    """Return ``(2, 1, t)``: one sounds in the first half, one in the second."""
    both = noise(2, 1, 2000)
    both[0, :, 1000:] = 0
    both[1, :, :1000] = 0
    return both


def test_gains_of_either_form() -> None:
    for step, gain in enumerate(PUBLISHED):
        assert accompaniment_gain(step / 10, "published_code") == pytest.approx(gain, abs=6e-4)
        assert accompaniment_gain(step / 10, "intended") == pytest.approx(1 - step / 10)


@pytest.mark.parametrize("form", ["intended", "published_code"])
def test_scores_are_those_of_remixes_made_by_hand(form: str) -> None:
    references = sources()
    mixture = references.sum(0)
    found = oracle_predictor(leaking, mixture, references, 1, (0.0, 0.5, 0.9), forms=(form,))
    assert [(score.beta, score.source) for score in found] == [
        (beta, source) for beta in (0.0, 0.5, 0.9) for source in (0, 1)
    ]
    for score in found:
        gains = torch.tensor([accompaniment_gain(score.beta, form), 1.0])[:, None, None]
        scaled = references * gains
        estimate = leaking(scaled.sum(0)[None])[0, score.source]
        assert score.si_sdr == pytest.approx(float(si_sdr(estimate, scaled[score.source])), abs=1e-3)


def test_the_raised_target_gains_and_the_others_lose() -> None:
    references = sources()
    found = oracle_predictor(leaking, references.sum(0), references, 0, (0.0, 0.5, 0.9), forms=("intended",))
    target, other = ([score.si_sdr for score in found if score.source == source] for source in (0, 1))
    assert target == sorted(target)
    assert target[-1] > target[0] + 10
    assert other == sorted(other, reverse=True)


def test_what_is_no_named_source_fades_with_the_others() -> None:
    references, rest = sources(), noise(1, 2000, seed=7)
    inputs: list[Tensor] = []

    def recorded(mixture: Tensor) -> Tensor:
        inputs.append(mixture)
        return leaking(mixture)

    oracle_predictor(recorded, references.sum(0) + rest, references, 0, (0.75,), forms=("intended",))
    close(inputs[0][0], references[0] + 0.25 * (references[1] + rest))


def test_remixes_are_normalized_by_the_original_mixture() -> None:
    class Recorded(AdaptedSeparator):
        def __init__(self) -> None:
            super().__init__(("a", "b"), 8000, 1)
            self.levels: list[float] = []

        def estimate(self, mixture: Tensor) -> Tensor:
            self.levels.append(float(mixture.std()))
            return leaking(mixture)

    separator = Standardised(Recorded())
    references = sources()
    oracle_predictor(separator, references.sum(0), references, 0, (0.0, 0.9), forms=("intended",))
    assert separator.separator.levels == pytest.approx([1.0, (0.5 * (1 + 0.01)) ** 0.5], rel=0.05)


def test_a_silent_source_has_no_score() -> None:
    references = sources()
    references[1] = 0
    found = oracle_predictor(leaking, references.sum(0), references, 0, (0.5,), forms=("intended",))
    assert found[0].si_sdr == found[0].si_sdr
    assert found[1].si_sdr != found[1].si_sdr
