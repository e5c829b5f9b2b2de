"""Mixtures made on the fly: of files of each source, of utterances by speaker, and of the stems of songs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_trees import RATE, SOURCES, audio, hertz, song, songs, tone, write
from draws import check_frequency, check_uniform
from torch import Tensor

from encore.data.audio import read_audio
from encore.data.corpora import Item
from encore.data.mixing_dataset import MixingDataset
from encore.data.music_corpora import song_folders
from encore.data.pools import speaker_pools

COUNT = 300
SINGERS = ("Ana", "Bob", "Cat")


def dataset(corpus: Any, sources: Any = SOURCES, **options: Any) -> MixingDataset:
    defaults = {"sample_rate": RATE, "segment": 800, "epoch_size": COUNT}
    return MixingDataset(corpus, sources=sources, **{**defaults, **options})


def draws(mixtures: MixingDataset, count: int = COUNT) -> Tensor:
    """References ``(count, source, channel, time)``, whose sum the mixtures are checked to be."""
    samples = [mixtures[index] for index in range(count)]
    if len(mixtures.sources) == len(mixtures.pools):
        for sample in samples:
            torch.testing.assert_close(sample["mixture"], sample["references"].sum(0), rtol=0, atol=1e-6)
    return torch.stack([sample["references"] for sample in samples])


def pitch(reference: Tensor) -> int:
    """Frequency in Hz of a tone at any level."""
    return int(torch.fft.rfft(reference[0], RATE).abs().argmax())


@pytest.fixture
def corpus(tmp_path: Path) -> list[Item]:
    songs(tmp_path / "songs", SINGERS, frames=4000)
    return song_folders(tmp_path / "songs")


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    for kind, count in (("speech", 3), ("noise", 4)):
        for number in range(count):
            write(tmp_path / f"{kind}{number}.wav", 0.1 * rng.standard_normal((2000, 1)))
    return {kind: sorted(tmp_path.glob(f"{kind}*.wav")) for kind in ("speech", "noise")}


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """Five speakers, each a tone of its own, with three utterances in two chapters."""
    for speaker in range(5):
        for number in range(3):
            folder = tmp_path / "voices" / f"p{speaker}" / f"chapter{number % 2}"
            audio(folder / f"{number}.wav", 900 + 100 * number, 500.0 + 250 * speaker)
    return tmp_path / "voices"


def test_the_first_source_keeps_its_level_and_others_have_the_drawn_ratio(
    pools: dict[str, list[Path]],
) -> None:
    speech, noise = draws(dataset(pools, pools, segment=300, snr_db=(-5.0, 15.0))).double().unbind(1)
    check_uniform(10 * torch.log10(speech.square().sum((1, 2)) / noise.square().sum((1, 2))), -5, 15)
    one, other = dataset(pools, pools, segment=300, snr_db=(3.0, 3.0))[17]["references"].double()
    ratio = float(10 * torch.log10(one.square().sum() / other.square().sum()))
    assert ratio == pytest.approx(3, rel=1e-5)
    wholes = [read_audio(file)[0][0].unfold(0, 300, 1) for file in pools["speech"]]
    found = {
        number
        for number, whole in enumerate(wholes)
        for segment in speech[:30].float()
        if bool((whole == segment[0]).all(1).any())
    }
    assert found == {0, 1, 2}


@pytest.mark.parametrize("kind", ["pools", "songs"])
def test_only_wanted_sources_are_returned_and_all_are_in_the_mixture(
    corpus: list[Item], pools: dict[str, list[Path]], kind: str
) -> None:
    made: Any = (pools, pools) if kind == "pools" else (corpus, SOURCES)
    options = {"gain_db": (-6, 6), "same_song": 0.5, "seed": 7}
    whole, one = (dataset(made[0], sources, **options) for sources in (made[1], list(made[1])[1:2]))
    assert torch.equal(one[0]["references"], whole[0]["references"][1:2])
    assert torch.equal(one[0]["mixture"], whole[0]["mixture"])
    assert whole[0, 3]["name"] != whole[0, 4]["name"]
    assert (len(whole), len(dataset(*made, epoch_size=None))) == (COUNT, 3)


def test_no_mixture_has_one_speaker_twice_and_all_pairs_occur(voices: Path, tmp_path: Path) -> None:
    audio(tmp_path / "street" / "noise.wav", 1000, 3500.0)
    for number in range(40):  # a speaker with many utterances is not drawn more often
        audio(voices / "p0" / f"more{number}.wav", 900, 500.0)
    two = speaker_pools(voices, noise=tmp_path / "street")
    drawn = draws(dataset(two, two, epoch_size=500), 500)
    pairs = Counter((pitch(first), pitch(second)) for first, second, _ in drawn)
    assert len(pairs) == 20
    assert all(first != second for first, second in pairs)
    for speaker in range(5):
        check_frequency([pitch(first) == 500 + 250 * speaker for first, _, _ in drawn], 1 / 5)
    assert {pitch(noise) for _, _, noise in drawn} == {3500}
    five = draws(dataset(speaker_pools(voices, speakers=5), [f"speaker{n}" for n in range(1, 6)]), 1)[0]
    assert sorted(map(pitch, five)) == [500, 750, 1000, 1250, 1500]


def test_every_source_comes_from_a_song_and_a_time_of_its_own_or_all_from_one(
    corpus: list[Item], tmp_path: Path
) -> None:
    for same_song in (0.0, 0.4, 1.0):
        drawn = [
            tuple(
                round((pitch(reference) - hertz(0, stem)) / 40) for stem, reference in enumerate(references)
            )
            for references in draws(dataset(corpus, same_song=same_song))
        ]
        for stem in range(4):
            for number in range(3):
                check_frequency([row[stem] == number for row in drawn], 1 / 3)
        check_frequency([len(set(row)) == 1 for row in drawn], same_song + (1 - same_song) / 27)
    # stems that are ramps say where they begin by their first sample
    files = {stem: write(tmp_path / f"{stem}.wav", np.arange(4000.0)[:, None] / 4000) for stem in "ab"}
    ramps = [Item(name="ramps", mixture=None, references=files)]
    for same_song, most in ((0.0, 5), (1.0, COUNT)):
        starts = 4000 * draws(dataset(ramps, "ab", segment=500, same_song=same_song))[:, :, 0, 0]
        equal = int((starts[:, 0] == starts[:, 1]).sum())
        assert equal < most if same_song == 0 else equal == most
        for column in starts.T:
            check_uniform(column, 0, 3500)


@pytest.mark.parametrize("same_song", [0.0, 1.0])
def test_gains_are_uniform_and_drawn_for_each_source(corpus: list[Item], same_song: float) -> None:
    def level(mixtures: MixingDataset, count: int = COUNT) -> Tensor:
        return 20 * (draws(mixtures, count).square().mean((2, 3)).sqrt() / (0.1 / np.sqrt(2))).log10()

    decibels = level(dataset(corpus, gain_db=(-9.0, 3.0), same_song=same_song))
    for column in decibels.T:
        check_uniform(column, -9, 3, tolerance=0.05)
    assert torch.corrcoef(decibels.T).fill_diagonal_(0).abs().max() < 4 / np.sqrt(COUNT)
    torch.testing.assert_close(level(dataset(corpus), 5), torch.zeros(5, 4), rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", ["pools", "apart", "together"])
def test_silent_segments_are_drawn_anew_up_to_ten_times(tmp_path: Path, kind: str) -> None:
    # the vocals begin after three quarters: a segment is silent if it begins in the first 5200 of 7200
    songs(tmp_path, SINGERS, stems=("vocals", "drums"), frames=8000, leads={"vocals": 6000})
    made: Any = song_folders(tmp_path, ("vocals", "drums"))
    if kind == "pools":
        made = {stem: sorted(tmp_path.glob(f"*/{stem}.wav")) for stem in ("vocals", "drums")}
    for skip, ratio in ((False, 5200 / 7200), (True, (5200 / 7200) ** 10)):
        options = {"skip_silent": skip, "same_song": float(kind == "together")}
        vocals = draws(dataset(made, ("vocals", "drums"), **options))[:, 0]
        check_frequency(~vocals.flatten(1).any(1), ratio)


def test_short_and_silent_files_are_padded_and_end_the_draws(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((100, 1))
    files = {
        "speech": [write(tmp_path / "a.wav", noise)],
        "noise": [write(tmp_path / "b.wav", np.zeros((1000, 1)))],
    }
    sample = dataset(files, files, snr_db=(-5, 5))[0]
    assert torch.equal(sample["mixture"], sample["references"][0])
    assert not bool(sample["mixture"][:, 100:].any())
    assert bool(sample["references"].isfinite().all())
    stereo = write(tmp_path / "c.wav", tone(500, 1000, channels=2), 2 * RATE)
    short = [Item(name="a", mixture=None, references={"vocals": stereo, "drums": (stereo, stereo)})]
    silent = [Item(name="b", mixture=None, references={"vocals": files["noise"][0]})]
    for same_song in (0.0, 1.0):
        references = draws(dataset(short, ["vocals", "drums"], channels=2, same_song=same_song), 1)[0]
        assert references.shape == (2, 2, 800)
        assert not bool(references[..., 500:].any())
        torch.testing.assert_close(references[1], 2 * references[0])
        assert not bool(draws(dataset(silent, ["vocals"], same_song=same_song, skip_silent=True), 1).any())


def test_songs_that_lack_a_source_are_left_out_of_its_draws_or_silent(tmp_path: Path) -> None:
    song(tmp_path / "full", 0, stems=("vocals", "drums"), frames=4000)
    song(tmp_path / "instrumental", 1, stems=("drums",), frames=4000)
    (tmp_path / "full" / "mixture.wav").unlink()  # the songs' own mixtures are not read
    full, instrumental = song_folders(tmp_path, {"vocals": ["vocals"], "drums": ["drums"]})
    assert instrumental.references["vocals"] == ()
    both = ["vocals", "drums"]
    # ten draws of any song would often find no vocals
    apart = draws(dataset([full, *9 * [instrumental]], both, skip_silent=True))
    assert bool(apart[:, 0].flatten(1).any(1).all())
    assert len({pitch(drums) for drums in apart[:50, 1]}) == 2
    for options in ({"same_song": 1.0, "skip_silent": True}, {"same_song": 0.0, "skip_silent": False}):
        vocals = draws(dataset([full, instrumental], both, **options))[:, 0]
        check_frequency(vocals.flatten(1).any(1), 0.5)
