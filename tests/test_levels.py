from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise
from torch import Tensor, nn

from encore.inference import FixedSchedule, GridSearch, Guide, refine
from encore.metrics import get_quality
from encore.models.levels import standardised, unstandardised
from encore.models.pretrained.contract import Levelled, OpenedSeparator, Resampled
from encore.models.pretrained.conventions import LEVELS
from encore.models.separators.hdemucs import HDemucs


class Squash(OpenedSeparator):
    """What comes out depends on the level of what goes in."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), 8000, 1)
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.seen: list[Tensor] = []

    def estimate(self, mixture: Tensor) -> Tensor:
        self.seen.append(mixture)
        kept = torch.tanh(self.weight * mixture)
        return torch.stack((kept, mixture - kept), dim=1)


def test_standardised_mixtures_have_mean_zero_and_deviation_one_over_the_mean_of_their_channels() -> None:
    mixture = 3 * noise(4, 2, 5000) + 0.5
    scaled, mean, deviation = standardised(mixture)
    mono = scaled.mean(dim=1)
    close(mono.std(dim=-1), torch.ones(4))
    assert float(mono.mean(dim=-1).abs().max()) < 1e-5
    close(scaled * deviation + mean, mixture)


def test_a_twin_shares_the_weights_and_leaves_the_original_as_it_was() -> None:
    original = Levelled(Squash(), "standardise")
    twin = unstandardised(original)
    mixture = noise(1, 1, 300) + 0.2
    close(twin(mixture), Squash()(mixture))
    scaled, mean, deviation = standardised(mixture)
    close(original(mixture), Squash()(scaled) * deviation[:, None] + mean[:, None])
    with torch.no_grad():
        original.separator.weight.fill_(0.1)
    assert float(twin.separator.weight) == pytest.approx(0.1)
    assert twin.sources == original.sources


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "standardise"])
def test_what_does_not_standardise_has_no_twin(level: str) -> None:
    assert unstandardised(Squash() if level == "none" else Levelled(Squash(), level)) is None
    assert unstandardised(lambda mixture: mixture[:, None]) is None


def test_a_twin_is_found_within_wrappers_and_architectures() -> None:
    wrapped = Resampled(Levelled(Squash(), "standardise"), 16000)
    assert unstandardised(wrapped) is not None
    mixture = noise(1, 1, 600)
    close(unstandardised(wrapped)(mixture), Resampled(Squash(), 16000)(mixture))
    torch.manual_seed(0)
    network = HDemucs(["a"], 8000, 1, width=4, depth=4).eval()
    scaled, mean, deviation = standardised(mixture)
    with torch.no_grad():
        by_hand = unstandardised(network)(scaled) * deviation[:, None] + mean[:, None]
        close(by_hand, network(mixture))


def test_by_the_mixture_all_blends_are_seen_at_its_level() -> None:
    separator = Levelled(Squash(), "standardise")
    mixture = 0.3 * noise(1, 1, 400) + 0.1
    guide = Guide(search=FixedSchedule([0.5, 0.9]), max_batch=1)
    by_mixture = guide(separator, mixture)
    scaled, mean, deviation = standardised(mixture)
    estimate = Squash()(scaled)[:, 0]
    for beta in (0.5, 0.9):
        estimate = Squash()((1 - beta) * scaled + beta * estimate)[:, 0]
    close(by_mixture.estimate, estimate * deviation + mean)
    seen = separator.separator.seen
    assert float(seen[0].std()) == pytest.approx(1, abs=0.01)
    assert float(seen[2].std()) < 0.9  # the blend is quieter, and stays so


def test_by_their_own_all_blends_are_seen_alike() -> None:
    separator = Levelled(Squash(), "standardise")
    Guide(search=FixedSchedule([0.5, 0.9]), level="own", max_batch=1)(separator, noise(1, 1, 400))
    for seen in separator.separator.seen:
        assert float(seen.std()) == pytest.approx(1, abs=0.01)


def test_items_keep_their_own_levels_in_a_batch() -> None:
    bare, mixture = Squash(), torch.cat((0.01 * noise(1, 1, 400), 5 * noise(1, 1, 400, seed=1)))
    reference = mixture.roll(1, -1)
    options = {
        "search": GridSearch(4),
        "steps": 3,
        "quality": get_quality("si_sdr", sample_rate=8000),
        "standardise": True,
    }
    together = refine(bare, mixture, reference=reference, **options)
    for item in range(2):
        own = slice(item, item + 1)
        alone = refine(bare, mixture[own], reference=reference[own], **options)
        close(together.estimate[own], alone.estimate, 1e-5)
        assert torch.equal(together.ratios[:, own].nan_to_num(-1), alone.ratios.nan_to_num(-1))
