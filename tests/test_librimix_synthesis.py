"""Laws of the synthetic LibriMix, on a small one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encore.data.pools import librimix_pools
from encore.data.speaker_corpora import TASKS, librimix
from encore.synthetic_corpora.__main__ import main
from encore.synthetic_corpora.speech_corpora import LIBRIMIX_SPEAKERS, LIBRIMIX_SUBSETS, LibriMix

pytest.importorskip("espeakng_loader")

RATE = 8000
SIZES = {"train": 4, "valid": 1, "test": 2}
PARTS = ("s1", "s2", "noise")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libri") / "corpus"
    assert main(f"librimix {out} --train 4 --valid 1 --test 2 --seconds 2 --seed 3".split()) == 0
    return out


def entries(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def samples(root: Path, entry: dict, kind: str) -> np.ndarray:
    path = root / "Libri2Mix/wav8k/min" / entry["subset"] / kind / f"{entry['mixture_ID']}.wav"
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


def test_our_reader_finds_every_task_and_part_by_the_tables(corpus: Path) -> None:
    base = corpus / "Libri2Mix" / "wav8k" / "min"
    for split, subset in LIBRIMIX_SUBSETS.items():
        listed = sorted(entry["mixture_ID"] for entry in entries(corpus) if entry["subset"] == subset)
        assert len(listed) == SIZES[split]
        for task in TASKS:
            items = librimix(corpus, split, task=task)
            assert [item.name for item in items] == listed
            files = [file for item in items for file in (item.mixture, *item.references.values())]
            assert all(file is not None and file.parent.parent == base / subset for file in files)
    tables = {path.name: path.read_text().splitlines() for path in (base / "metadata").iterdir()}
    assert len(tables) == 9
    for kind, parts in (("clean", "source_2"), ("both", "source_2_path,noise"), ("single", "noise")):
        head, row = tables[f"mixture_dev_mix_{kind}.csv"]
        assert head == f"mixture_ID,mixture_path,source_1_path,{parts}_path,length"
        infos = [soundfile.info(corpus / path) for path in row.split(",")[1:-1]]
        assert {(info.frames, info.samplerate) for info in infos} == {(int(row.split(",")[-1]), RATE)}


def test_mixtures_are_sums_to_the_bit_of_sources_at_the_manifests_levels(corpus: Path) -> None:
    for entry in entries(corpus):
        one, two, noise = (samples(corpus, entry, part) for part in PARTS)
        assert one.size == two.size == noise.size == entry["frames"]
        assert 2 * RATE <= one.size <= 4 * RATE
        np.testing.assert_array_equal(samples(corpus, entry, "mix_clean"), one + two)
        np.testing.assert_array_equal(samples(corpus, entry, "mix_both"), one + two + noise)
        np.testing.assert_array_equal(samples(corpus, entry, "mix_single"), one + noise)
        for part, sound, level in zip(PARTS, (one, two, noise), entry["levels_db"], strict=True):
            assert 20 * np.log10(np.sqrt((sound**2).mean()) / 32768) == pytest.approx(level, abs=0.05)
            assert level <= (-30 if part == "noise" else -25)


def test_a_peak_above_the_largest_scales_all_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LibriMix(out=Path("unused"), seconds=2)
    _, plain = settings.make("valid", 0)
    monkeypatch.setattr(LibriMix, "largest_peak", 0.01)
    files, scaled = settings.make("valid", 0)
    moved = np.subtract(scaled["levels_db"], plain["levels_db"])
    assert moved == pytest.approx([moved[0]] * 3)
    assert moved[0] < -10
    assert max(np.abs(np.asarray(sound)).max() for sound in files.values()) <= 0.01 * 32768 + 2


def test_a_mixture_has_different_timbres_and_names_its_speakers(corpus: Path) -> None:
    for entry in entries(corpus):
        one, two = entry["voices"]
        assert one["timbre"] != two["timbre"]
        assert entry["texts"][0] != entry["texts"][1]
        assert [part.split("-")[0] for part in entry["mixture_ID"].split("_")] == entry["speakers"]
        (split,) = (split for split, subset in LIBRIMIX_SUBSETS.items() if subset == entry["subset"])
        assert set(entry["speakers"]) <= set(LIBRIMIX_SPEAKERS[split])
    spoken = [s for entry in entries(corpus) if entry["subset"] == "train-100" for s in entry["speakers"]]
    pools = dict(librimix_pools(corpus)["speaker1"])  # type: ignore[call-overload]
    assert {speaker: len(files) for speaker, files in pools.items()} == {s: spoken.count(s) for s in spoken}
    files, entry = LibriMix(out=Path("unused"), speakers=3, seconds=2).make("train", 0)
    assert len(files) == 7
    assert len({voice["timbre"] for voice in entry["voices"]}) == 3
