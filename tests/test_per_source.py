from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretrained_toys import open_joined
from separator_toys import close, noise
from torch import Tensor

from encore.models import load_separator
from encore.models.levels import standardised, unstandardised
from encore.models.pretrained.contract import Levelled, OpenedSeparator
from encore.models.pretrained.per_source import Joined
from encore.models.selection import Selected


class Counting(OpenedSeparator):
    def __init__(self, *sources: str, rate: int = 8000) -> None:
        super().__init__(sources, rate, 1)
        self.calls = 0

    def estimate(self, mixture: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([(place + 2) * mixture for place, _ in enumerate(self.sources)], dim=1)


def test_sources_lie_side_by_side_under_their_names(tmp_path: Path) -> None:
    separator = load_separator(open_joined(tmp_path).uri)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("vocals", "drums"), 8000, 1)


def test_of_a_selection_only_those_are_asked_that_know_it() -> None:
    parts = Counting("a", "b"), Counting("c"), Counting("d")
    mixture = noise(1, 1, 100)
    close(Selected(Joined(parts), ["d", "b"])(mixture)[0], torch.cat((2 * mixture, 3 * mixture)))
    assert [part.calls for part in parts] == [1, 0, 1]


def test_one_of_two_speakers_beside_a_sound_cannot_be_told_by_its_name() -> None:
    parts = Joined([Counting("speech1"), Counting("sound"), Counting("speech2")])
    assert Selected(parts, ["sound"]).sources == ("sound",)
    assert Selected(parts, ["speech2", "speech1"]).sources == ("speech2", "speech1")
    with pytest.raises(ValueError, match="sources=speech1,sound: speech1, speech2 come in any order"):
        Selected(parts, ["speech1", "sound"])


def test_levels_are_left_to_the_caller_if_all_parts_minded_them() -> None:
    mixture = noise(1, 1, 300) + 0.3
    both = Joined([Levelled(Counting(name), "standardise") for name in "ab"])
    scaled, mean, deviation = standardised(mixture)
    close(unstandardised(both)(scaled) * deviation[:, None] + mean[:, None], both(mixture))
    assert unstandardised(Joined([Levelled(Counting("a"), "standardise"), Counting("b")])) is None


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([], "joined names no separator"),
        ([Counting("a"), Counting("a")], "different names"),
        ([Counting("a"), Counting("b", rate=16000)], r"sample_rate \[8000, 16000\]"),
    ],
)
def test_what_does_not_fit_together(parts: list[Counting], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Joined(parts)
