from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise
from torch import Tensor, nn

from encore.models.levels import normalized, without_normalization
from encore.models.separators.contract import AdaptedSeparator
from encore.models.separators.hdemucs import HDemucs
from encore.models.wrappers import LeastSquares, Resampled, Standardised


class Squash(AdaptedSeparator):
    """A separator whose estimates depend on the level of its input."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), 8000, 1)
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.inputs: list[Tensor] = []

    def estimate(self, mixture: Tensor) -> Tensor:
        self.inputs.append(mixture)
        kept = torch.tanh(self.weight * mixture)
        return torch.stack((kept, mixture - kept), dim=1)


def test_standardised_mixtures_have_mean_zero_and_deviation_one_over_the_mean_of_their_channels() -> None:
    mixture = 3 * noise(4, 2, 5000) + 0.5
    scaled, mean, deviation = normalized(mixture)
    mono = scaled.mean(dim=1)
    close(mono.std(dim=-1), torch.ones(4))
    assert float(mono.mean(dim=-1).abs().max()) < 1e-5
    close(scaled * deviation + mean, mixture)
    scaled, mean, deviation = normalized(mixture[..., :1])
    close(scaled * deviation + mean, mixture[..., :1])


def test_a_twin_shares_the_weights_and_leaves_the_original_as_it_was() -> None:
    original = Standardised(Squash())
    twin = without_normalization(original)
    mixture = noise(1, 1, 300) + 0.2
    close(twin(mixture), Squash()(mixture))
    scaled, mean, deviation = normalized(mixture)
    close(original(mixture), Squash()(scaled) * deviation[:, None] + mean[:, None])
    with torch.no_grad():
        original.separator.weight.fill_(0.1)
    assert float(twin.separator.weight) == pytest.approx(0.1)
    assert twin.sources == original.sources


def test_what_does_not_standardise_has_no_twin() -> None:
    assert without_normalization(Squash()) is None
    assert without_normalization(LeastSquares(Squash())) is None
    assert without_normalization(lambda mixture: mixture[:, None]) is None


def test_a_twin_is_found_within_wrappers_and_architectures() -> None:
    wrapped = Resampled(Standardised(Squash()), 16000)
    assert without_normalization(wrapped) is not None
    mixture = noise(1, 1, 600)
    close(without_normalization(wrapped)(mixture), Resampled(Squash(), 16000)(mixture))
    torch.manual_seed(0)
    network = HDemucs(["a"], 8000, 1, width=4, depth=4).eval()
    scaled, mean, deviation = normalized(mixture)
    with torch.no_grad():
        by_hand = without_normalization(network)(scaled) * deviation[:, None] + mean[:, None]
        close(by_hand, network(mixture))
