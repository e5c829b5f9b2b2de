from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_trees import RATE, SOURCES, hertz, song, songs, tone, write
from torch import Tensor

from encore.data.corpora import Item
from encore.data.mixing_dataset import MixingDataset
from encore.data.music_corpora import song_folders

COUNT = 300
NAMES = ("Ana", "Bob", "Cat")


@pytest.fixture
def corpus(tmp_path: Path) -> list[Item]:
    songs(tmp_path / "songs", NAMES, frames=4000)
    return song_folders(tmp_path / "songs")


def dataset(items: list[Item], **options: object) -> MixingDataset:
    defaults: dict[str, object] = {
        "sources": list(SOURCES),
        "sample_rate": RATE,
        "segment": 800,
        "epoch_size": COUNT,
        "skip_silent": True,
    }
    return MixingDataset(items, **{**defaults, **options})  # type: ignore[arg-type]


def heard(waveform: Tensor, stem: int) -> int:
    """Whose tone a reference is, whatever its level."""
    spectrum = torch.fft.rfft(waveform[0], RATE).abs()
    return round((float(spectrum.argmax()) - hertz(0, stem)) / 40)


def singers(sample: dict) -> tuple[int, ...]:
    return tuple(heard(reference, stem) for stem, reference in enumerate(sample["references"]))


def near(found: int, share: float) -> None:
    assert found / COUNT == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / COUNT))


def test_every_source_comes_from_a_song_and_a_place_of_its_own(corpus: list[Item]) -> None:
    mixtures = dataset(corpus, epoch_size=COUNT)
    drawn = []
    for sample in map(mixtures.__getitem__, range(COUNT)):
        assert sample["references"].shape == (4, 1, 800)
        torch.testing.assert_close(sample["mixture"], sample["references"].sum(0), rtol=0, atol=1e-6)
        drawn.append(singers(sample))  # type: ignore[arg-type]
    for stem in range(4):
        for number in range(3):
            near(sum(row[stem] == number for row in drawn), 1 / 3)
    near(sum(len(set(row)) == 1 for row in drawn), 3 / 81)
    assert len(set(drawn)) > 60  # of 81


def test_the_places_of_the_sources_are_drawn_apart_or_together(tmp_path: Path) -> None:
    """Stems that are ramps tell their place by their first sample."""
    files = {stem: write(tmp_path / f"{stem}.wav", np.arange(4000.0)[:, None] / 4000) for stem in "ab"}
    ramps = [Item(name="ramps", mixture=None, references=files)]
    options = {"sources": ["a", "b"], "segment": 500}
    apart = [dataset(ramps, **options)[index]["references"][:, 0, 0] for index in range(COUNT)]
    together = [
        dataset(ramps, same_song=1.0, **options)[index]["references"][:, 0, 0] for index in range(COUNT)
    ]
    assert sum(float(first) == float(second) for first, second in apart) < 5
    assert all(float(first) == float(second) for first, second in together)
    for places in (apart, together):
        starts = torch.stack(places).double() * 4000
        # uniform on 0..3500: standard error 1010 / sqrt(300) = 58
        assert (starts.mean(0) - 1750).abs().max() < 4 * 58
        assert starts.min() < 100
        assert 3400 < starts.max() <= 3500


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_mixtures_is_of_one_song(corpus: list[Item], share: float) -> None:
    mixtures = dataset(corpus, same_song=share)
    whole = [len(set(singers(mixtures[index]))) == 1 for index in range(COUNT)]  # type: ignore[arg-type]
    near(sum(whole), share + (1 - share) / 27)


def test_a_mixture_depends_on_seed_draw_and_index_alone(corpus: list[Item]) -> None:
    options = {"same_song": 0.5, "gain_db": (-6.0, 6.0)}
    first, again, other = (dataset(corpus, seed=seed, **options) for seed in (7, 7, 8))
    again[1, 5]  # what was asked before must not matter
    for index in range(5):
        assert torch.equal(first[index, 3]["references"], again[index, 3]["references"])
    assert torch.equal(first[0]["mixture"], first[0, 0]["mixture"])
    assert first[0, 3]["name"] != first[0, 4]["name"]
    for sample in (first[0, 4], other[0, 3], first[1, 3]):
        assert not torch.equal(first[0, 3]["mixture"], sample["mixture"])
    assert len(first) == COUNT
    with pytest.raises(IndexError):
        first[COUNT]


@pytest.mark.parametrize("same_song", [0.0, 1.0])
def test_gains_are_uniform_and_drawn_for_each_source(corpus: list[Item], same_song: float) -> None:
    mixtures = dataset(corpus, gain_db=(-9.0, 3.0), same_song=same_song)
    references = torch.stack([mixtures[index]["references"] for index in range(COUNT)])
    level = references.square().mean((2, 3)).sqrt() / (0.1 / np.sqrt(2))
    decibels = 20 * level.log10()
    assert decibels.min() > -9.05
    assert decibels.max() < 3.05
    assert (decibels.mean(0) + 3).abs().max() < 4 * 12 / np.sqrt(12 * COUNT)
    assert torch.corrcoef(decibels.T).fill_diagonal_(0).abs().max() < 4 / np.sqrt(COUNT)
    torch.testing.assert_close(mixtures[5]["mixture"], references[5].sum(0), rtol=0, atol=1e-6)
    plain = torch.stack([dataset(corpus)[index]["references"] for index in range(5)])
    torch.testing.assert_close(plain.square().mean((2, 3)), torch.full((5, 4), 0.005), rtol=1e-3, atol=0)


def test_only_wanted_sources_are_returned_and_all_are_in_the_mixture(corpus: list[Item]) -> None:
    all_four, one = dataset(corpus)[3], dataset(corpus, sources=["bass"])[3]
    assert torch.equal(one["references"], all_four["references"][2:3])
    assert torch.equal(one["mixture"], all_four["mixture"])


def _half_silent(folder: Path, count: int = 3) -> list[Item]:
    """Songs whose vocals begin after three quarters, and whose drums begin at once."""
    songs(folder, NAMES[:count], stems=("vocals", "drums"), frames=8000, leads={"vocals": 6000})
    return song_folders(folder, ("vocals", "drums"))


@pytest.mark.parametrize("same_song", [0.0, 1.0])
def test_silent_segments_are_drawn_anew_up_to_ten_times(tmp_path: Path, same_song: float) -> None:
    items = _half_silent(tmp_path)
    options = {"sources": ["vocals", "drums"], "same_song": same_song}
    plain, skipping = (dataset(items, skip_silent=skip, **options) for skip in (False, True))
    silent = [
        sum(not bool(mixtures[index]["references"][0].any()) for index in range(COUNT))
        for mixtures in (plain, skipping)
    ]
    # a segment of 800 samples is silent if it begins in the first 5200 of 7200
    share = 5200 / 7200
    near(silent[0], share)
    near(silent[1], share**10)


def test_draws_end_where_everything_is_silent(tmp_path: Path) -> None:
    write(tmp_path / "song" / "vocals.wav", np.zeros((4000, 1)))
    items = song_folders(tmp_path, ["vocals"])
    for same_song in (0.0, 1.0):
        sample = dataset(items, sources=["vocals"], same_song=same_song)[0]
        assert not bool(sample["mixture"].any())


def test_songs_that_lack_a_source_are_left_out_of_its_draws_or_silent(tmp_path: Path) -> None:
    song(tmp_path / "full", 0, stems=("vocals", "drums"), frames=4000)
    song(tmp_path / "instrumental", 1, stems=("none", "drums"), frames=4000)
    (tmp_path / "instrumental" / "none.wav").unlink()
    items = song_folders(tmp_path, {"vocals": ["vocals"], "drums": ["drums"]})
    assert [item.references["vocals"] for item in items][1] == ()
    options = {"sources": ["vocals", "drums"]}
    apart = dataset([items[0], *9 * [items[1]]], **options)  # ten draws of any song would often find none
    assert all(bool(apart[index]["references"][0].any()) for index in range(COUNT))
    assert {heard(apart[index]["references"][1], 1) for index in range(50)} == {0, 1}
    together = dataset(items, same_song=1.0, **options)
    kinds = Counter(bool(together[index]["references"][0].any()) for index in range(COUNT))
    near(kinds[True], 0.5)
    silent_too = dataset(items, skip_silent=False, **options)
    near(sum(bool(silent_too[index]["references"][0].any()) for index in range(COUNT)), 0.5)


def test_short_songs_are_padded_and_channels_and_rates_are_those_wanted(tmp_path: Path) -> None:
    stereo = write(tmp_path / "a" / "vocals.wav", tone(500, 1000, channels=2), 2 * RATE)
    short = [Item(name="a", mixture=None, references={"vocals": stereo, "drums": (stereo, stereo)})]
    for same_song in (0.0, 1.0):
        sample = dataset(short, sources=["vocals", "drums"], channels=2, same_song=same_song)[0]
        assert sample["references"].shape == (2, 2, 800)
        assert float(sample["references"][..., 500:].abs().max()) == 0
        torch.testing.assert_close(sample["references"][1], 2 * sample["references"][0])
    assert dataset(short, sources=["vocals"])[0]["mixture"].shape == (1, 800)


def test_the_songs_own_mixtures_are_not_read(corpus: list[Item]) -> None:
    for item in corpus:
        assert item.mixture is not None
        item.mixture.unlink()
    assert dataset(corpus, same_song=1.0)[0]["mixture"].shape == (1, 800)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ["voice"]}, r"sources: \['voice'\] are not in the corpus, which has \['vocals', "),
        ({"sources": []}, "sources is empty"),
        ({"same_song": 1.5}, "same_song=1.5: give a probability from 0 to 1"),
        ({"gain_db": (3.0, -3.0)}, r"gain_db=\(3.0, -3.0\) is reversed"),
        ({"segment": 0}, "segment=0 is not positive"),
        ({"epoch_size": 0}, "epoch_size=0 is not positive"),
    ],
)
def test_mistakes_are_one_line(corpus: list[Item], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        dataset(corpus, **options)
    assert "\n" not in str(caught.value)


def test_songs_that_do_not_go_together_are_named(corpus: list[Item]) -> None:
    odd = Item(name="odd", mixture=None, references={"vocals": Path("v.wav")})
    silent = Item(name="silent", mixture=None, references={"vocals": ()})
    for items, message in (
        ([], "items is empty"),
        ([*corpus, odd], r"'odd' has references \['vocals'\], 'Ana' has \['bass', 'drums', "),
        ([silent], r"no song has a recording of \['vocals'\]"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            dataset(items, sources=["vocals"])  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
