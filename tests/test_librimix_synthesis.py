from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encore.data.speaker_corpora import TASKS, librimix
from encore.data.speaker_pools import librimix_pools
from encore.data.synthesis import flite
from encore.data.synthesis.__main__ import main
from encore.data.synthesis.librimix import MANIFEST, MIXTURES, LibriMix, make_parts, write_corpus
from encore.data.synthesis.librimix_voices import (
    SPEAKERS,
    crowd_variants,
    draw_speakers,
    espeak_voices,
    flite_voices,
    timbre,
)
from encore.data.synthesis.speech import VARIANTS

pytest.importorskip("espeakng_loader")

RATE = 8000
SIZES = {"train-100": 5, "dev": 2, "test": 3}
PARTS = ("s1", "s2", "noise")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libri") / "corpus"
    sizes = ["--train", "5", "--valid", "2", "--test", "3", "--seconds", "1", "--seed", "3"]
    assert main(["librimix", str(out), *sizes, "--workers", "2"]) == 0
    return out


def entries(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / MANIFEST).read_text(encoding="utf-8").splitlines()]


def samples(root: Path, entry: dict, kind: str) -> np.ndarray:
    path = root / "Libri2Mix/wav8k/min" / entry["subset"] / kind / f"{entry['mixture_ID']}.wav"
    read, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return read.astype(np.int64)


def test_our_reader_finds_every_task_and_part_by_the_tables(corpus: Path) -> None:
    base = corpus / "Libri2Mix" / "wav8k" / "min"
    for split, subset in (("train", "train-100"), ("valid", "dev"), ("test", "test")):
        listed = sorted(entry["mixture_ID"] for entry in entries(corpus) if entry["subset"] == subset)
        assert len(listed) == SIZES[subset]
        for task in TASKS:
            items = librimix(corpus, split, task=task)
            assert [item.name for item in items] == listed
            files = [file for item in items for file in (item.mixture, *item.references.values())]
            assert all(file is not None and file.parent.parent == base / subset for file in files)
        assert {folder.name for folder in (base / subset).iterdir()} == {*MIXTURES, *PARTS}


def test_tables_have_the_columns_of_librimix(corpus: Path) -> None:
    tables = corpus / "Libri2Mix" / "wav8k" / "min" / "metadata"
    heads = {path.name: path.read_text().splitlines() for path in sorted(tables.iterdir())}
    assert len(heads) == 9
    start = "mixture_ID,mixture_path,source_1_path"
    assert heads["mixture_dev_mix_clean.csv"][0] == f"{start},source_2_path,length"
    assert heads["mixture_dev_mix_both.csv"][0] == f"{start},source_2_path,noise_path,length"
    assert heads["mixture_dev_mix_single.csv"][0] == f"{start},noise_path,length"
    name, *paths, length = heads["mixture_test_mix_both.csv"][1].split(",")
    assert [Path(path).parent.name for path in paths] == ["mix_both", "s1", "s2", "noise"]
    assert {Path(path).stem for path in paths} == {name}
    assert {soundfile.info(corpus / path).frames for path in paths} == {int(length)}


def test_mixtures_are_sums_to_the_bit_and_end_together(corpus: Path) -> None:
    for entry in entries(corpus):
        one, two, noise = (samples(corpus, entry, part) for part in PARTS)
        assert one.size == two.size == noise.size == entry["frames"]
        assert RATE <= one.size <= 3 * RATE
        np.testing.assert_array_equal(samples(corpus, entry, "mix_clean"), one + two)
        np.testing.assert_array_equal(samples(corpus, entry, "mix_both"), one + two + noise)
        np.testing.assert_array_equal(samples(corpus, entry, "mix_single"), one + noise)


def test_levels_are_the_manifests_within_librimix_ranges(corpus: Path) -> None:
    for entry in entries(corpus):
        for part, level in zip(PARTS, entry["levels_db"], strict=True):
            rms = np.sqrt((samples(corpus, entry, part) ** 2).mean()) / 32768
            assert 20 * np.log10(rms) == pytest.approx(level, abs=0.05)
            assert level <= (-30 if part == "noise" else -25)
    differences = np.array([[e["levels_db"][0] - e["levels_db"][1]] for e in entries(corpus)])
    assert np.abs(differences).max() < 8
    assert differences.std() > 1


def test_a_peak_above_the_largest_scales_all_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LibriMix(out=Path("unused"), seconds=1)
    plain, entry = make_parts(settings, "dev", 0)
    monkeypatch.setattr("encore.data.synthesis.librimix.LARGEST_PEAK", 0.01)
    scaled, scaled_entry = make_parts(settings, "dev", 0)
    gains = [float((scaled[part] * plain[part]).sum() / (plain[part] ** 2).sum()) for part in PARTS]
    assert gains == pytest.approx([gains[0]] * 3, rel=1e-9)
    peak = max(
        np.abs(sum(scaled[part] for part in heard)).max() for heard in (PARTS, ("s1", "s2"), ("s1", "noise"))
    )
    assert max(peak, *(np.abs(part).max() for part in scaled.values())) == pytest.approx(0.01)
    moved = np.subtract(scaled_entry["levels_db"], entry["levels_db"])
    assert moved == pytest.approx([20 * np.log10(gains[0])] * 3, rel=1e-6)


def test_same_bytes_for_any_number_of_workers_and_a_small_corpus_is_part_of_a_large_one(
    corpus: Path, tmp_path: Path
) -> None:
    write_corpus(LibriMix(out=tmp_path, train=2, valid=1, test=1, seconds=1, seed=3), workers=1)
    files = list(tmp_path.rglob("*.wav"))
    assert len(files) == 4 * 6
    for path in files:
        assert path.read_bytes() == (corpus / path.relative_to(tmp_path)).read_bytes()


def test_another_seed_gives_other_speakers_texts_and_noise(corpus: Path) -> None:
    _, entry = make_parts(LibriMix(out=Path("unused"), seconds=1, seed=4), "train-100", 0)
    known = next(known for known in entries(corpus) if known["subset"] == "train-100")
    assert all(entry[key] != known[key] for key in ("mixture_ID", "texts", "voices", "noise_seed"))


@pytest.mark.parametrize("seed", range(10))
def test_held_out_timbres_are_nowhere_in_training(seed: int) -> None:
    voices = espeak_voices(seed)
    timbres = {
        subset: {timbre(voices[speaker]) for speaker in speakers} for subset, speakers in SPEAKERS.items()
    }
    assert [len(timbres[subset]) for subset in ("test", "dev", "train-100")] == [6, 4, 30]
    assert not timbres["train-100"] & (timbres["test"] | timbres["dev"])
    assert not timbres["test"] & timbres["dev"]
    others = flite_voices(seed)
    assert {timbre(others[speaker]) for speaker in SPEAKERS["test"]} == {"rms", "slt"}
    assert {timbre(others[speaker]) for speaker in SPEAKERS["train-100"] + SPEAKERS["dev"]} == {
        "awb",
        "kal16",
    }


def test_babble_has_neither_held_out_variants_nor_the_mixtures_own() -> None:
    voices = espeak_voices(0)
    crowd = crowd_variants(0, ("1001", "1002"))
    held_out = {voices[speaker].variant for speaker in (*SPEAKERS["test"], *SPEAKERS["dev"], "1001", "1002")}
    assert set(crowd) == set(VARIANTS) - held_out


def test_a_mixture_has_two_timbres_and_names_its_speakers(corpus: Path) -> None:
    for entry in entries(corpus):
        one, two = entry["voices"]
        assert one["variant"] != two["variant"]
        assert entry["texts"][0] != entry["texts"][1]
        assert [part.split("-")[0] for part in entry["mixture_ID"].split("_")] == entry["speakers"]
        assert set(entry["speakers"]) <= set(SPEAKERS[entry["subset"]])
    pools = librimix_pools(corpus)
    spoken = [s for entry in entries(corpus) if entry["subset"] == "train-100" for s in entry["speakers"]]
    assert {speaker: len(files) for speaker, files in dict(pools["speaker1"]).items()} == {  # type: ignore[call-overload]
        speaker: spoken.count(speaker) for speaker in spoken
    }


def test_speakers_drawn_together_differ_in_timbre() -> None:
    voices = flite_voices(0)
    speakers = SPEAKERS["train-100"]  # forty, in two voices
    drawn = {draw_speakers(speakers, voices, 2, np.random.default_rng(seed)) for seed in range(50)}
    assert all(timbre(voices[one]) != timbre(voices[two]) for one, two in drawn)
    assert len(drawn) > 45


def test_three_speakers_have_three_timbres() -> None:
    parts, entry = make_parts(LibriMix(out=Path("unused"), speakers=3, seconds=1), "dev", 0)
    assert list(parts) == ["s1", "s2", "s3", "noise"]
    assert len({voice["variant"] for voice in entry["voices"]}) == 3  # type: ignore[attr-defined]
    assert str(entry["mixture_ID"]).count("_") == 2


@needs_flite
def test_flite_speaks_at_8_khz_in_two_voices() -> None:
    settings = LibriMix(out=Path("unused"), seconds=1, synthesiser="flite")
    parts, entry = make_parts(settings, "test", 0)
    assert {voice["name"] for voice in entry["voices"]} == {"rms", "slt"}  # type: ignore[attr-defined]
    wide, _ = make_parts(
        LibriMix(out=Path("unused"), seconds=1, synthesiser="flite", sample_rate=16_000), "test", 0
    )
    assert parts["s1"].size == -(-wide["s1"].size // 2)
    assert flite.SAMPLE_RATE == 16_000
    np.testing.assert_allclose(
        np.abs(np.fft.rfft(parts["s1"]))[100:1000].mean(),
        np.abs(np.fft.rfft(wide["s1"]))[100:1000].mean() / 2,
        rtol=0.1,
    )


def test_the_readme_says_how_to_make_it_again(corpus: Path) -> None:
    text = (corpus / "README.md").read_text(encoding="utf-8")
    sizes = "--train 5 --valid 2 --test 3 --seconds 1.0 --sample-rate 8000 --speakers 2"
    assert f"python -m encore.data.synthesis librimix OUT {sizes} --synthesiser espeak --seed 3\n" in text
    assert "Cosentino" in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sample-rate", "44100"], "sample_rate must be 8000 or 16000 Hz, not 44100"),
        (["--valid", "-1"], "valid must not be negative, not -1"),
        (["--seconds", "0"], "seconds must be positive, not 0.0"),
        (["--speakers", "4"], "speakers must be 2 or 3, not 4"),
        (["--workers", "0"], "workers must be at least 1, not 0"),
        (["--synthesiser", "festival"], "synthesiser must be espeak or flite, not 'festival'"),
        (
            ["--synthesiser", "flite", "--speakers", "3"],
            "speakers must be 2 with synthesiser flite, not 3: it has two voices a split, only espeak more",
        ),
    ],
)
def test_command_line_refuses_in_one_line(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["librimix", str(tmp_path / "corpus"), *options]) == 1
    assert capsys.readouterr().err == f"error: {reason}\n"
    assert not (tmp_path / "corpus").exists()


def test_a_full_folder_is_kept_unless_told(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tiny = LibriMix(out=tmp_path, train=1, valid=0, test=0, seconds=1)
    with pytest.raises(ValueError, match="out is not empty"):
        write_corpus(tiny, workers=1)
    write_corpus(tiny, workers=1, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*.wav"))) == 6
    with pytest.raises(ValueError, match="lists no mixtures"):
        librimix(tmp_path, "valid")
