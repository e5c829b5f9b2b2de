from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretrained_toys import open_per_source
from separator_toys import close, noise
from torch import Tensor

from encore.models import load_separator, select
from encore.models.levels import normalized, without_normalization
from encore.models.separators.contract import AdaptedSeparator
from encore.models.wrappers import PerSource, SelectSources, Standardised


class Counting(AdaptedSeparator):
    def __init__(self, *sources: str, rate: int = 8000) -> None:
        super().__init__(sources, rate, 1)
        self.calls = 0

    def estimate(self, mixture: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([(place + 2) * mixture for place, _ in enumerate(self.sources)], dim=1)


def test_sources_have_their_separators_names(tmp_path: Path) -> None:
    separator = load_separator(open_per_source(tmp_path).uri)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("vocals", "drums"), 8000, 1)


def test_of_a_selection_only_the_separators_of_its_sources_are_called() -> None:
    parts = Counting("a", "b"), Counting("c"), Counting("d")
    mixture = noise(1, 1, 100)
    for chosen in (select(PerSource(parts), "d", "b"), select(PerSource(parts), ["d", "b"])):
        close(chosen(mixture)[0], torch.cat((2 * mixture, 3 * mixture)))
    assert [part.calls for part in parts] == [2, 0, 2]
    with pytest.raises(ValueError, match="sources=x: 'x' is none of a, b"):
        select(parts[0], "x")


def test_one_of_two_speakers_beside_a_sound_cannot_be_selected() -> None:
    parts = PerSource([Counting("speech1"), Counting("sound"), Counting("speech2")])
    assert SelectSources(parts, ["sound"]).sources == ("sound",)
    assert SelectSources(parts, ["speech2", "speech1"]).sources == ("speech2", "speech1")
    with pytest.raises(ValueError, match="sources=speech1,sound: speech1, speech2 come in any order"):
        SelectSources(parts, ["speech1", "sound"])


def test_levels_are_left_to_the_caller_if_all_parts_standardise() -> None:
    mixture = noise(1, 1, 300) + 0.3
    both = PerSource([Standardised(Counting(name)) for name in "ab"])
    scaled, mean, deviation = normalized(mixture)
    close(without_normalization(both)(scaled) * deviation[:, None] + mean[:, None], both(mixture))
    assert without_normalization(PerSource([Standardised(Counting("a")), Counting("b")])) is None
