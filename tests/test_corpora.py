"""Corpora of noisy speech, of simultaneous speakers and folders of one's own, listed from their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from corpus_trees import KINDS, MIXTURES, libri2mix, names, touch, tree, write_table

from encore.data.corpora import (
    Item,
    audio_files,
    blind_folder,
    dns,
    evenly_spaced,
    mixed_folders,
    paired_folders,
    voicebank_demand,
)
from encore.data.pools import librimix_pools, speaker_pools
from encore.data.speaker_corpora import librimix, wham, wsj0_mix

SPLITS = ("train", "valid", "test")


def folders(items: list[Item]) -> list[str]:
    """The folders of the mixture and the references of the only item."""
    (item,) = items
    return [file.parent.name for file in item.files]


@pytest.fixture
def vbd(tmp_path: Path) -> Path:
    for kind in ("clean", "noisy"):
        for speaker in ("p287", "p225", "p226"):
            touch(tmp_path / f"{kind}_trainset_28spk_wav", f"{speaker}_002.wav", f"{speaker}_001.wav")
        touch(tmp_path / f"{kind}_testset_wav", "p232_001.wav")
    return tmp_path


def test_voicebank_demand_as_published(vbd: Path) -> None:
    train, valid, test = (voicebank_demand(vbd, split) for split in SPLITS)
    assert names(train) == ["p225_001", "p225_002"]
    assert names(valid) == ["p226_001", "p226_002", "p287_001", "p287_002"]
    assert names(test) == ["p232_001"]
    assert train[0].mixture == vbd / "noisy_trainset_28spk_wav" / "p225_001.wav"
    assert train[0].references == {"speech": vbd / "clean_trainset_28spk_wav" / "p225_001.wav"}
    assert names(voicebank_demand(vbd, "valid", valid_speakers=["p225"])) == ["p225_001", "p225_002"]
    assert len(voicebank_demand(vbd, "train", valid_speakers=["p225"])) == 4
    assert len(voicebank_demand(vbd, "train", valid_speakers=[])) == 6
    with pytest.raises(ValueError, match="valid_speakers: p999 have no files"):
        voicebank_demand(vbd, "train", valid_speakers=["p225", "p999"])


def dns_tree(root: Path, count: int = 6, noise: bool = True) -> None:
    for number in range(count):
        touch(root / "noisy", f"book_{count - number}_snr{number}_tl-21_fileid_{number}.wav")
        for kind in ("clean", "noise")[: 1 + noise]:
            touch(root / kind, f"{kind}_fileid_{number}.wav")


@pytest.mark.parametrize("inside", ["", "training", "datasets/training"])
def test_dns_pairs_by_file_id(tmp_path: Path, inside: str) -> None:
    dns_tree(tmp_path / inside)
    train, valid = dns(tmp_path, "train", valid_every=3), dns(tmp_path, "valid", valid_every=3)
    for item in train + valid:
        number = item.name.rsplit("_", 1)[1]
        assert [file.name for file in item.files[1:]] == [
            f"{kind}_fileid_{number}.wav" for kind in ("clean", "noise")
        ]
    # names sort by book, against the file ids
    assert [name[-1] for name in names(valid)] == ["3", "0"]
    assert [name[-1] for name in names(train)] == ["5", "4", "2", "1"]


def test_dns_without_noise_test_set_and_blind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no noisy or"):
        dns(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no test_set/synthetic/no_reverb"):
        dns(tmp_path, "test")
    dns_tree(tmp_path, noise=False)
    assert set(dns(tmp_path, valid_every=3)[0].references) == {"speech"}
    for place, number in (("no_reverb", 1), ("with_reverb", 2)):
        tree(tmp_path / "test_set" / "synthetic" / place, ("noisy", "clean"), [f"x_fileid_{number}"])
    assert names(dns(tmp_path, "test")) == ["x_fileid_1"]
    assert names(dns(tmp_path, "test", reverb=True)) == ["x_fileid_2"]
    touch(tmp_path / "test_set" / "real_recordings", "phone.wav")
    (blind,) = dns(tmp_path, "blind")
    assert (blind.name, blind.references) == ("phone", {})
    with pytest.raises(ValueError, match="valid_every=0"):
        dns(tmp_path, valid_every=0)
    with pytest.raises(ValueError, match="valid_every=1 leaves no file"):
        dns(tmp_path, "train", valid_every=1)
    touch(tmp_path / "noisy", "one.wav")
    with pytest.raises(ValueError, match=r"one\.wav does not end in fileid_<number>"):
        dns(tmp_path)


def test_paired_folders_pair_subfolders_and_suffixes(tmp_path: Path) -> None:
    noisy, clean, noise = (tmp_path / name for name in "ncz")
    touch(noisy, "a/1.wav", "2.flac", "._2.flac")
    touch(clean, "a/1.flac", "2.wav", "notes.txt")
    touch(noise, "a/1.wav", "2.wav")
    items = paired_folders(noisy, clean, source="vocals", noise=noise)
    assert names(items) == ["2", "a/1"]
    assert items[1].references == {"vocals": clean / "a" / "1.flac", "noise": noise / "a" / "1.wav"}


def test_mixed_and_blind_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.wav", "a/1.wav", "s/x.wav")
    pools = mixed_folders({"speech": tmp_path / "s", "noise": [tmp_path / "b", str(tmp_path / "a")]})
    assert pools == {
        "speech": [tmp_path / "s" / "x.wav"],
        "noise": [tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav"],
    }
    assert names(blind_folder(tmp_path)) == ["a/1", "b/2", "s/x"]
    with pytest.raises(ValueError, match="folders is empty"):
        mixed_folders({})


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    libri2mix(tmp_path)
    return tmp_path


def test_librimix_splits_and_subsets(libri: Path) -> None:
    assert names(librimix(libri)) == sorted(MIXTURES)
    assert names(librimix(libri, subsets=["train-360", "train-100"])) == [*sorted(MIXTURES), "9-1-1_8-1-1"]
    assert names(librimix(libri, "valid")) == ["7-1-1_6-1-1"]
    assert librimix(libri / "Libri2Mix", "test") == librimix(libri, "test")
    assert names(librimix(libri, "test")) == ["5-1-1_4-1-1"]


TASKS = {
    "sep_clean": ("mix_clean", {"speaker1": "s1", "speaker2": "s2"}),
    "sep_noisy": ("mix_both", {"speaker1": "s1", "speaker2": "s2"}),
    "enh_single": ("mix_single", {"speech": "s1"}),
    "enh_both": ("mix_both", {"speech": "mix_clean"}),
}


@pytest.mark.parametrize("task", TASKS)
def test_tasks_choose_folders_and_tables_choose_mixtures(libri: Path, task: Any) -> None:
    mixture, references = TASKS[task]
    base, name = libri / "Libri2Mix" / "wav8k" / "min", sorted(MIXTURES)[-1]
    item = Item(
        name=name,
        mixture=base / "train-100" / mixture / f"{name}.wav",
        references={
            source: base / "train-100" / folder / f"{name}.wav" for source, folder in references.items()
        },
    )
    assert librimix(libri, task=task)[1:] == [item]
    # the paths of another machine, and one mixture only
    there = "/elsewhere/Libri2Mix/wav8k/min/train-100"
    row = {"mixture_ID": name, "mixture_path": f"{there}/{mixture}/{name}.wav", "length": "80"}
    row |= {f"source_{n}_path": f"{there}/s{n}/{name}.wav" for n in (1, 2)}
    write_table(base / "metadata" / f"mixture_train-100_{mixture}.csv", [row])
    assert librimix(libri, task=task) == [item]
    tree(libri / "wham" / "wav8k" / "min" / "cv", KINDS, ["a"])
    assert folders(wham(libri / "wham", "valid", task=task)) == [mixture, *references.values()]


def test_a_table_of_librimix_may_name_files_that_lie_elsewhere(libri: Path) -> None:
    table = libri / "Libri2Mix" / "wav8k" / "min" / "metadata" / "mixture_train-100_mix_clean.csv"
    touch(libri / "away", "m.wav", "one.wav", "two.wav")
    files = [libri / "away" / f"{name}.wav" for name in ("m", "one", "two")]
    row = dict(zip(("mixture_path", "source_1_path", "source_2_path"), map(str, files), strict=True))
    write_table(table, [{"mixture_ID": "m", **row}])
    (item,) = librimix(libri)
    assert item.files == files
    files[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"s2/two\.wav is missing, and so is .*csv names it"):
        librimix(libri)
    write_table(table, [{"mixture_ID": "m", "mixture_path": str(files[0])}])
    with pytest.raises(ValueError, match="source_1_path is missing; the columns are mixture_ID, mixture_pa"):
        librimix(libri)
    table.write_text("mixture_ID,mixture_path\n")
    with pytest.raises(ValueError, match="lists no mixtures"):
        librimix(libri)


def test_layouts_by_split(tmp_path: Path) -> None:
    """VoiceBank-DEMAND as SGMSE has it, and MiniLibriMix."""
    for split in SPLITS:
        tree(tmp_path / split, ("clean", "noisy"), [f"p226_{split}"])
        assert names(voicebank_demand(tmp_path, split)) == [f"p226_{split}"]
    for subset in ("train", "val"):
        tree(tmp_path / "MiniLibriMix" / subset, ("mix_clean", "mix_both", "s1", "s2", "noise"), [subset])
    assert names(librimix(tmp_path)) == ["train"]
    assert names(librimix(tmp_path / "MiniLibriMix", "valid", task="sep_noisy")) == ["val"]
    with pytest.raises(ValueError, match=r"is MiniLibriMix.*split='test'.*data\.test=null"):
        librimix(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="has no folder mix_single; it has mix_both, mix_clean, noi"):
        librimix(tmp_path, task="enh_single")


@pytest.mark.parametrize(
    ("corpus", "base", "mixture"),
    [(librimix, "Libri{}Mix/{}/dev", "mix_clean"), (wsj0_mix, "{}speakers/{}/cv", "mix")],
)
def test_speakers_rates_and_modes(
    tmp_path: Path, corpus: Callable[..., list[Item]], base: str, mixture: str
) -> None:
    options = {"speakers": 3, "sample_rate": 16000, "mode": "max"}
    for count, place in ((2, "wav8k/min"), (3, "wav16k/max")):
        speakers = [f"s{number}" for number in range(1, count + 1)]
        tree(tmp_path / base.format(count, place), (mixture, *speakers), ["b", "a"])
    assert names(corpus(tmp_path, "valid")) == ["a", "b"]
    three = corpus(tmp_path, "valid", **options)[0]
    assert list(three.references) == ["speaker1", "speaker2", "speaker3"]
    assert three.files[-1].parts[-2:] == ("s3", "a.wav")
    assert corpus(tmp_path / base.format(3, "").split("/")[0], "valid", **options)[0] == three


def test_whamr_halves_and_dereverberation(tmp_path: Path) -> None:
    kinds = [f"{kind}_{half}" for kind in KINDS[:-1] for half in ("anechoic", "reverb")]
    tree(tmp_path / "wav8k" / "min" / "tr", [*kinds, "noise"], ["a"])
    dry: dict[str, Any] = {"reverb": "reverb", "dereverberate": True}
    options: list[tuple[dict[str, Any], list[str]]] = [
        ({"reverb": "anechoic"}, ["mix_clean_anechoic", "s1_anechoic", "s2_anechoic"]),
        ({"reverb": "reverb", "task": "sep_noisy"}, ["mix_both_reverb", "s1_reverb", "s2_reverb"]),
        (dry, ["mix_clean_reverb", "s1_anechoic", "s2_anechoic"]),
        ({**dry, "task": "enh_both"}, ["mix_both_reverb", "mix_clean_anechoic"]),
    ]
    for chosen, found in options:
        assert folders(wham(tmp_path, **chosen)) == found
    with pytest.raises(FileNotFoundError, match=r"no folder mix_clean; .*change task, speakers or reverb"):
        wham(tmp_path)
    with pytest.raises(ValueError, match="dereverberate=True needs reverb='reverb', not 'anechoic'"):
        wham(tmp_path, reverb="anechoic", dereverberate=True)


def test_librimix_pools_have_the_utterances_of_each_speaker(libri: Path) -> None:
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
    with pytest.raises(FileNotFoundError, match=r"3-3\.wav is missing: add it, or use task=sep_clean"):
        librimix_pools(libri, task="sep_noisy")
    tree(base, KINDS, ["song"])
    with pytest.raises(ValueError, match=r"song\.wav: a name like 103-1240-0003_1235-135887-0017"):
        librimix_pools(libri)


def test_a_folder_per_speaker_and_noise(tmp_path: Path) -> None:
    touch(tmp_path / "voices", *(f"p{n}/chapter{n % 2}/{n}.wav" for n in range(5)), "p0/more.flac")
    touch(tmp_path / "street", "noise.wav")
    pools = speaker_pools(tmp_path / "voices", noise=tmp_path / "street")
    assert list(pools) == ["speaker1", "speaker2", "noise"]
    assert pools["noise"] == [tmp_path / "street" / "noise.wav"]
    first = dict(pools["speaker1"])  # type: ignore[call-overload]
    assert {name: len(own) for name, own in first.items()} == {"p0": 2} | {f"p{n}": 1 for n in "1234"}
    with pytest.raises(ValueError, match=r"speakers=6: give 2 .* the 5 of .* \(p0, p1, p2 and 2 more\)"):
        speaker_pools(tmp_path / "voices", speakers=6)
    touch(tmp_path / "voices", "stray.wav")
    with pytest.raises(ValueError, match=r"stray\.wav is in no speaker's folder"):
        speaker_pools(tmp_path / "voices")


def paired(files: dict[str, tuple[str, ...]], root: Path) -> list[Item]:
    for folder, present in files.items():
        touch(root / folder, *present)
    return paired_folders(root / "n", root / "c")


def listed(root: Path, **options: Any) -> list[Item]:
    libri2mix(root)
    return librimix(root, **options)


SIX = tuple(f"{number}.wav" for number in range(6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: voicebank_demand(root / "no"), r"no is not a folder.*correct data\.root"),
        (voicebank_demand, "noisy_trainset_28spk_wav is not a folder"),
        (partial(voicebank_demand, split="dev"), "split='dev' is unknown: use one of train"),
        (
            partial(paired, {"n": SIX, "c": ("5.wav",)}),
            r"5 files of .*n are not in .*c \(0, 1, 2 and 2 more\)",
        ),
        (partial(paired, {"n": SIX[:1], "c": SIX[:2]}), r"1 files of .*c are not in .*n \(1\)"),
        (partial(paired, {"n": ("0.wav", "0.flac"), "c": SIX[:1]}), "are both '0'"),
        (lambda root: touch(root, "a.txt") or audio_files(root), "has no audio files: expected .wav"),
        (partial(librimix, split="dev"), "split='dev' is unknown: use one of train, valid, test"),
        (partial(librimix, speakers=4), "speakers='4' is unknown"),
        (partial(listed, subsets=["train"]), "subsets='train' is unknown"),
        (partial(listed, subsets=[]), "subsets is empty"),
        (partial(librimix, sample_rate=44100), "sample_rate='44100' is unknown: use one of 8000, 16000"),
        (partial(librimix, mode="mid"), "mode='mid' is unknown"),
        (partial(librimix, task="sep"), "task='sep' is unknown: use one of sep_clean"),
        (partial(wham, reverb="dry"), "reverb='dry' is unknown"),
        (partial(wsj0_mix, mode="max"), "has no wav8k/max: correct data.root, sample_rate or mode"),
        (partial(librimix_pools, task="enh_both"), "task='enh_both' is unknown: use one of sep_clean, sep_n"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "limit"), [(7, 3), (3, 7), (5, None), (5, 5)])
def test_evenly_spaced_indices_are_distinct_and_in_order(count: int, limit: int | None) -> None:
    chosen = evenly_spaced(count, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, limit or count)
    assert all(0 <= index < count for index in chosen)
