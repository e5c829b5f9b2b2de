from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from corpus_trees import KINDS, MIXTURES, audio, libri2mix, tree

from encore.data.corpora import Item
from encore.data.speaker_corpora import librimix, wham, wsj0_mix


def _names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


def _table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    libri2mix(tmp_path)
    return tmp_path


def test_librimix_splits_and_subsets(libri: Path) -> None:
    assert _names(librimix(libri)) == sorted(MIXTURES)
    assert _names(librimix(libri, subsets=["train-360", "train-100"])) == [*sorted(MIXTURES), "9-1-1_8-1-1"]
    assert _names(librimix(libri, "valid")) == ["7-1-1_6-1-1"]
    assert librimix(libri / "Libri2Mix", "test") == librimix(libri, "test")
    assert _names(librimix(libri, "test")) == ["5-1-1_4-1-1"]


@pytest.mark.parametrize(
    ("task", "mixture", "references"),
    [
        ("sep_clean", "mix_clean", {"speaker1": "s1", "speaker2": "s2"}),
        ("sep_noisy", "mix_both", {"speaker1": "s1", "speaker2": "s2"}),
        ("enh_single", "mix_single", {"speech": "s1"}),
        ("enh_both", "mix_both", {"speech": "mix_clean"}),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_librimix_tasks_with_and_without_tables(
    libri: Path, task: str, mixture: str, references: dict[str, str], listed: bool
) -> None:
    base = libri / "Libri2Mix" / "wav8k" / "min"
    if listed:  # the paths of another machine, and one mixture only
        there = "/elsewhere/Libri2Mix/wav8k/min/train-100"
        row = {
            "mixture_ID": "26-1-1_587-3-3",
            "mixture_path": f"{there}/{mixture}/26-1-1_587-3-3.wav",
            **{f"source_{n}_path": f"{there}/s{n}/26-1-1_587-3-3.wav" for n in (1, 2)},
            "length": "80",
        }
        _table(base / "metadata" / f"mixture_train-100_{mixture}.csv", [row])
    items = librimix(libri, task=task)  # type: ignore[arg-type]
    assert _names(items) == (["26-1-1_587-3-3"] if listed else sorted(MIXTURES))
    file = "26-1-1_587-3-3.wav"
    assert items[-1].mixture == base / "train-100" / mixture / file
    assert items[-1].references == {
        source: base / "train-100" / folder / file for source, folder in references.items()
    }


def test_librimix_table_may_name_files_that_lie_elsewhere(libri: Path, tmp_path: Path) -> None:
    table = libri / "Libri2Mix" / "wav8k" / "min" / "metadata" / "mixture_train-100_mix_clean.csv"
    paths = {
        "mixture_path": audio(tmp_path / "away" / "m.wav"),
        "source_1_path": audio(tmp_path / "away" / "one.wav"),
        "source_2_path": audio(tmp_path / "away" / "two.wav"),
    }
    _table(table, [{"mixture_ID": "m", **{column: str(file) for column, file in paths.items()}}])
    (item,) = librimix(libri)
    assert [item.mixture, *item.references.values()] == list(paths.values())
    paths["source_2_path"].unlink()
    with pytest.raises(
        FileNotFoundError, match=r"s2/two\.wav is missing, and so is .*mix_clean\.csv names it"
    ):
        librimix(libri)
    _table(table, [{"mixture_ID": "m", "mixture_path": str(paths["mixture_path"])}])
    with pytest.raises(
        ValueError, match="a row without source_1_path; its columns are mixture_ID, mixture_path"
    ):
        librimix(libri)
    table.write_text("mixture_ID,mixture_path\n")
    with pytest.raises(ValueError, match="lists no mixtures"):
        librimix(libri)


def test_minilibrimix(tmp_path: Path) -> None:
    for subset in ("train", "val"):
        tree(tmp_path / "MiniLibriMix" / subset, ("mix_clean", "mix_both", "s1", "s2", "noise"), [subset])
    assert _names(librimix(tmp_path)) == ["train"]
    assert _names(librimix(tmp_path / "MiniLibriMix", "valid", task="sep_noisy")) == ["val"]
    with pytest.raises(ValueError, match=r"is MiniLibriMix.*split='test'.*data\.test=null"):
        librimix(tmp_path, "test")
    with pytest.raises(
        FileNotFoundError, match="has no folder mix_single; it has mix_both, mix_clean, noise"
    ):
        librimix(tmp_path, task="enh_single")


def test_three_speakers_at_16_khz_in_max_mode(tmp_path: Path) -> None:
    tree(tmp_path / "Libri3Mix" / "wav16k" / "max" / "dev", ("mix_clean", "s1", "s2", "s3"), ["a"])
    (item,) = librimix(tmp_path, "valid", speakers=3, sample_rate=16000, mode="max")
    assert list(item.references) == ["speaker1", "speaker2", "speaker3"]
    assert item.references["speaker3"].parent.name == "s3"


def test_wsj0_mix(tmp_path: Path) -> None:
    for split in ("tr", "cv", "tt"):
        tree(
            tmp_path / "2speakers" / "wav8k" / "min" / split,
            ("mix", "s1", "s2"),
            [f"{split}_b", f"{split}_a"],
        )
    tree(tmp_path / "3speakers" / "wav16k" / "max" / "tt", ("mix", "s1", "s2", "s3"), ["x"])
    assert [_names(wsj0_mix(tmp_path, split)) for split in ("train", "valid", "test")] == [
        ["tr_a", "tr_b"],
        ["cv_a", "cv_b"],
        ["tt_a", "tt_b"],
    ]
    assert wsj0_mix(tmp_path / "2speakers", "test") == wsj0_mix(tmp_path, "test")
    assert wsj0_mix(tmp_path)[0].references["speaker2"].parts[-3:] == ("tr", "s2", "tr_a.wav")
    (item,) = wsj0_mix(tmp_path, "test", speakers=3, sample_rate=16000, mode="max")
    assert list(item.references) == ["speaker1", "speaker2", "speaker3"]


def test_wham_tasks(tmp_path: Path) -> None:
    tree(tmp_path / "wav8k" / "min" / "cv", KINDS, ["a"])
    for task, folders in (
        ("sep_clean", ["mix_clean", "s1", "s2"]),
        ("sep_noisy", ["mix_both", "s1", "s2"]),
        ("enh_single", ["mix_single", "s1"]),
        ("enh_both", ["mix_both", "mix_clean"]),
    ):
        (item,) = wham(tmp_path, "valid", task=task)  # type: ignore[arg-type]
        assert [file.parent.name for file in (item.mixture, *item.references.values()) if file] == folders


def test_whamr_halves_and_dereverberation(tmp_path: Path) -> None:
    kinds = [f"{kind}_{half}" for kind in KINDS[:-1] for half in ("anechoic", "reverb")]
    tree(tmp_path / "wav8k" / "min" / "tr", [*kinds, "noise"], ["a"])

    def folders(**options: object) -> list[str]:
        (item,) = wham(tmp_path, **options)  # type: ignore[arg-type]
        return [file.parent.name for file in (item.mixture, *item.references.values()) if file]

    assert folders(reverb="anechoic") == ["mix_clean_anechoic", "s1_anechoic", "s2_anechoic"]
    assert folders(reverb="reverb", task="sep_noisy") == ["mix_both_reverb", "s1_reverb", "s2_reverb"]
    dry = {"reverb": "reverb", "dereverberate": True}
    assert folders(**dry) == ["mix_clean_reverb", "s1_anechoic", "s2_anechoic"]
    assert folders(**dry, task="enh_both") == ["mix_both_reverb", "mix_clean_anechoic"]
    with pytest.raises(FileNotFoundError, match=r"no folder mix_clean; .*change task, speakers or reverb"):
        wham(tmp_path)
    with pytest.raises(ValueError, match="dereverberate=True needs reverb='reverb', not 'anechoic'"):
        wham(tmp_path, reverb="anechoic", dereverberate=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(librimix, split="dev"), "split='dev' is unknown: use one of train, valid, test"),
        (partial(librimix, speakers=4), "speakers='4' is unknown"),
        (partial(librimix, sample_rate=44100), "sample_rate='44100' is unknown: use one of 8000, 16000"),
        (partial(librimix, mode="mid"), "mode='mid' is unknown"),
        (partial(librimix, task="sep"), "task='sep' is unknown: use one of sep_clean"),
        (partial(librimix, subsets=["train"]), "subsets='train' is unknown"),
        (partial(librimix, subsets=[]), "subsets is empty"),
        (partial(wham, reverb="dry"), "reverb='dry' is unknown"),
        (
            partial(wsj0_mix, sample_rate=16000),
            "has no folder wav16k/min: correct data.root, sample_rate or mode",
        ),
        (partial(librimix, speakers=3), "has no folder wav8k/min|s3"),
    ],
)
def test_a_mistake_is_one_line(libri: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(libri)
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, FileNotFoundError)):
        call(libri / "nowhere")
