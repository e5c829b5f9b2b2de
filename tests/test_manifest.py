"""Lists of items in CSV and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_trees import write_table

from encore.data.corpora import Item
from encore.data.manifest import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mix", "a, b", "é", "far/away", "list/near"):
        file = tmp_path / f"{name}.wav"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return tmp_path / "list"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_rows_are_items_sorted_by_name_with_paths_from_the_lists_folder(folder: Path, suffix: str) -> None:
    near, away, accent = folder / "near.wav", folder.parent / "far" / "away.wav", folder / "../é.wav"
    rows = [
        {"name": "sum", "mixture": "", "vocals": "near.wav", "other": f"{away}|../é.wav", "snr": "3"},
        {"name": "silent", "mixture": "near.wav", "vocals": "|", "other": "../a, b.wav|", "snr": ""},
        {"name": "", "mixture": str(away), "vocals": "../é.wav", "other": "", "snr": "x"},
    ]
    if suffix == "csv":
        write_table(folder / "items.csv", rows)
    else:
        (folder / f"items.{suffix}").write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert manifest(folder / f"items.{suffix}") == [
        Item(name="away", mixture=away, references={"vocals": accent}),
        Item(name="silent", mixture=near, references={"vocals": (), "other": (folder / "../a, b.wav",)}),
        Item(name="sum", mixture=None, references={"vocals": near, "other": (away, accent)}),
    ]


def test_a_nemo_manifest(folder: Path) -> None:
    row = {"noisy_filepath": "near.wav", "clean_filepath": str(folder.parent / "é.wav"), "offset": 0.0}
    (folder / "nemo.json").write_text(json.dumps({**row, "duration": 1.5}) + "\n\n")
    (item,) = manifest(folder / "nemo.json")
    assert item == Item(
        name="near", mixture=folder / "near.wav", references={"speech": folder.parent / "é.wav"}
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name,mixture,speech\n1,gone.wav,\n", "line 2: mixture .*gone.wav is missing"),
        ("a.csv", "mixture,other\nm.wav,m.wav|gone.wav\n", r"line 2: other .*gone\.wav is missing"),
        ("a.csv", "mixture\nm.wav|m.wav\n", r"mixture='m.wav\|m.wav' is a sum of files"),
        ("a.csv", "name,mixture\n1,m.wav\n1,m.wav\n", "line 3: name '1' occurs twice"),
        ("a.csv", "name,mixture\n1,m.wav,x\n", "line 2: more cells than columns"),
        ("a.csv", "name,mixture\n", "lists no items"),
        ("a.csv", "name,mixture,other\n1,,|\n", "line 2: names no file"),
        ("a.jsonl", '{"mixture": "m.wav"\n', "line 1: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: .* is no object"),
        ("a.jsonl", '{"mixture": "m.wav", "takes": 3}\n', "line 1: takes=3 is no path"),
        ("a.jsonl", '{"mixture": "m.wav", "offset": 2.5}\n', "line 1: offset=2.5 is not read"),
        ("a.txt", "m.wav\n", "is no known kind of manifest"),
        ("a.csv", None, "is not a file: give a manifest"),
    ],
)
def test_a_bad_manifest_names_its_line(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    (tmp_path / "m.wav").touch()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        manifest(tmp_path / name)
    assert "\n" not in str(caught.value)
