from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_trees import KINDS, MIXTURES, RATE, audio, libri2mix, tree
from torch import Tensor

from encore.data.datamodule import SeparationData
from encore.data.mixing_dataset import MixingDataset
from encore.data.pools import librimix_pools, speaker_pools


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    libri2mix(tmp_path)
    return tmp_path


def _hertz(speaker: int) -> float:
    return 500.0 + 250 * speaker


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """Five speakers, each a tone of its own, with three utterances that differ in length, in two chapters."""
    for speaker in range(5):
        for number in range(3):
            place = tmp_path / "voices" / f"p{speaker}" / f"chapter{number % 2}"
            audio(place / f"{number}.wav", 900 + 100 * number, _hertz(speaker))
    return tmp_path / "voices"


def _heard(waveform: Tensor) -> int:
    """Whose tone it is, whatever its level."""
    spectrum = torch.fft.rfft(waveform.flatten(), RATE).abs()
    return round((float(spectrum.argmax()) - 500) / 250)


def _dataset(pools: dict, **options: object) -> MixingDataset:
    defaults = {
        "sources": list(pools),
        "sample_rate": RATE,
        "segment": 800,
        "epoch_size": 200,
        "snr_db": (-5, 5),
    }
    return MixingDataset(pools, **{**defaults, **options})  # type: ignore[arg-type]


def test_no_mixture_has_one_speaker_twice_and_all_pairs_occur(voices: Path) -> None:
    pairs = set()
    for sample in map(_dataset(speaker_pools(voices)).__getitem__, range(200)):
        first, second = (_heard(reference) for reference in sample["references"])
        assert first != second
        pairs.add((first, second))
        torch.testing.assert_close(sample["mixture"], sample["references"].sum(0))
    assert len(pairs) == 20
    three = _dataset(speaker_pools(voices, speakers=5))[0]["references"]
    assert sorted(map(_heard, three)) == [0, 1, 2, 3, 4]


def test_speakers_differ_in_level_by_the_drawn_ratio(voices: Path) -> None:
    levels = []
    for sample in map(_dataset(speaker_pools(voices)).__getitem__, range(200)):
        first, second = sample["references"].double().square().sum((1, 2))
        levels.append(float(10 * torch.log10(first / second)))
    # uniform on -5..5: standard error of the mean 2.89 / sqrt(200) = 0.2
    assert abs(np.mean(levels)) < 4 * 0.2
    assert -5.001 < min(levels) < -4.5
    assert 4.5 < max(levels) < 5.001


def test_a_speaker_with_many_utterances_is_not_drawn_more_often(voices: Path) -> None:
    for number in range(40):
        audio(voices / "p0" / f"more{number}.wav", 900, _hertz(0))
    dataset = _dataset(speaker_pools(voices), epoch_size=1000)
    first = [_heard(dataset[index]["references"][0]) for index in range(1000)]
    # one in five: standard deviation sqrt(1000 * 0.2 * 0.8) = 12.6
    assert abs(first.count(0) - 200) < 4 * 12.6


def _batches(root: Path, **options: object) -> list[Tensor]:
    data = SeparationData(
        train=partial(speaker_pools, root),
        sources=("speaker1", "speaker2"),
        sample_rate=RATE,
        segment_seconds=0.05,
        batch_size=5,
        **options,  # type: ignore[arg-type]
    )
    return [batch["references"] for batch in data.train_dataloader()]


def test_draws_depend_on_the_seed_and_not_on_the_workers(voices: Path) -> None:
    here, there, other = (_batches(voices, **o) for o in ({}, {"num_workers": 2}, {"seed": 1}))
    assert len(here) == 3  # fifteen utterances
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(here, other, strict=True))
    first, again, other = (_dataset(speaker_pools(voices), seed=seed)[3, 1]["mixture"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_librimix_pools_know_who_speaks(libri: Path) -> None:
    base = libri / "Libri2Mix" / "wav8k" / "min" / "train-100"
    pools = librimix_pools(libri, task="sep_noisy")
    assert list(pools) == ["speaker1", "speaker2", "noise"]
    assert pools["speaker1"] == pools["speaker2"]
    assert pools["speaker1"] == {
        "103": [base / "s1" / "103-1-1_26-2-2.wav"],
        "26": [base / "s2" / "103-1-1_26-2-2.wav", base / "s1" / "26-1-1_587-3-3.wav"],
        "587": [base / "s2" / "26-1-1_587-3-3.wav"],
    }
    assert pools["noise"] == [base / "noise" / f"{name}.wav" for name in sorted(MIXTURES)]
    assert list(librimix_pools(libri)) == ["speaker1", "speaker2"]
    (base / "noise" / "26-1-1_587-3-3.wav").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"26-1-1_587-3-3\.wav is missing: add it, or use task=sep_clean"
    ):
        librimix_pools(libri, task="sep_noisy")


def test_noise_joins_the_speakers(voices: Path, tmp_path: Path) -> None:
    audio(tmp_path / "street" / "noise.wav", 1000, 3500.0)
    pools = speaker_pools(voices, noise=tmp_path / "street")
    sample = _dataset(pools, sources=["speaker1", "speaker2"])[0]
    rest = sample["mixture"] - sample["references"].sum(0)
    assert _heard(rest) == 12  # 3500 Hz
    assert sample["references"].shape == (2, 1, 800)


def test_pools_that_cannot_be_mixed(voices: Path, libri: Path) -> None:
    with pytest.raises(ValueError, match=r"speakers=6: give 2 .* the 5 of .* \(p0, p1, p2 and 2 more\)"):
        speaker_pools(voices, speakers=6)
    pools = speaker_pools(voices)
    with pytest.raises(ValueError, match="'speaker2' has 1 speakers, but a mixture needs 2 of them"):
        _dataset({**pools, "speaker2": {"p0": pools["speaker2"]["p0"]}})  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"pools has no files for \['speaker1'\]"):
        _dataset({**pools, "speaker1": {"p0": [], "p1": []}})
    with pytest.raises(ValueError, match="task='enh_both' is unknown: use one of sep_clean, sep_noisy"):
        librimix_pools(libri, task="enh_both")  # type: ignore[arg-type]
    stray = audio(voices / "stray.wav")
    with pytest.raises(ValueError, match=r"stray\.wav is in no speaker's folder"):
        speaker_pools(voices)
    stray.unlink()
    base = libri / "Libri2Mix" / "wav8k" / "min" / "train-100"
    tree(base, KINDS, ["song"])
    with pytest.raises(ValueError, match=r"song\.wav: a name like 103-1240-0003_1235-135887-0017"):
        librimix_pools(libri)
