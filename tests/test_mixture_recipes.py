"""Mixtures of isolated sources: where sources lie, which are drawn, and what is written."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_trees import audio
from draws import check_uniform, seeded
from torch import Generator, Tensor

from encore.data.audio import read_audio
from encore.data.manifest import manifest
from encore.data.mixture_recipes import (
    LISTING,
    MANIFEST,
    TASKS,
    draw_recordings,
    main,
    write_task,
)
from encore.data.placement import Placement, apply_placements, draw_placements, sounding_blocks
from encore.data.reading import Reader
from encore.data.source_corpora import Recording

FRAMES = 64_000


def event(frames: int, before: int = 0, after: int = 0, seed: int = 0) -> Tensor:
    """Noise between silences."""
    noise = torch.randn(frames, generator=seeded(seed))
    return torch.cat((torch.zeros(before), noise, torch.zeros(after)))


def place(signals: list[Tensor], frames: int, generator: Generator) -> tuple[list[Placement], Tensor]:
    placements = draw_placements(signals, frames=frames, generator=generator)
    return placements, apply_placements(signals, placements, frames)


def span(row: Tensor) -> tuple[int, int]:
    """First and last frame, excluded, at which a row without noise is not zero."""
    sounding = row.nonzero()[:, 0]
    return int(sounding[0]), int(sounding[-1]) + 1


def many(count: int) -> list[Generator]:
    return [seeded(seed) for seed in range(count)]


def test_a_source_lies_whole_anywhere_in_the_mixture() -> None:
    spans = [span(place([event(16_000)], FRAMES, draw)[1][0]) for draw in many(300)]
    assert {end - begin for begin, end in spans} == {16_000}
    check_uniform([begin for begin, _ in spans], 0, FRAMES - 16_000)


def test_a_later_source_begins_to_sound_while_the_one_before_it_sounds() -> None:
    events = [event(12_800, 0, 9000), event(2560, 5120, 0, seed=1), event(25_600, 256, 512, seed=2)]
    gaps = []
    for draw in many(200):
        placements, rows = place(events, FRAMES, draw)
        spans = [span(row) for row in rows]
        assert [placement.onset for placement in placements] == [begin for begin, _ in spans]
        assert [end - begin for begin, end in spans] == [12_800, 2560, 25_600]
        assert all(begin <= later < end for (begin, end), (later, _) in pairwise(spans))
        gaps.append([(spans[1][0] - spans[0][0]) / 12_800, (spans[2][0] - spans[1][0]) / 2560])
    for column in np.transpose(gaps):
        check_uniform(column, 0, 1)
    same, again, other = (place(events, FRAMES, seeded(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_levels_are_exact_over_the_mixture_evenly_drawn_and_nothing_is_clipped() -> None:
    levels, events = [], [1e-4 * event(900), 30 * event(70_000)]
    for draw in many(150):
        placements, rows = place(events, FRAMES, draw)
        levels.append((10 * rows.double().square().mean(1).log10()).tolist())
        assert levels[-1] == pytest.approx([placement.level_db for placement in placements], abs=1e-4)
    for column in np.transpose(levels):
        check_uniform(column, -25, -20)
    assert float(place([event(32)] * 2, FRAMES, Generator())[1].abs().max()) > 2


def test_what_is_longer_than_the_mixture_is_cut_where_it_sounds() -> None:
    # 1 s of sound, 5 s of near silence, 1 s of sound: some cuts would hold nothing
    whole = torch.cat((event(16_000), 1e-4 * event(80_000, seed=1), event(16_000, seed=2)))
    starts = []
    for draw in many(100):
        (placement,) = draw_placements([whole], frames=FRAMES, generator=draw)
        assert placement.offset == 0 or placement.frames < FRAMES
        used = whole[placement.first : placement.first + placement.frames]
        assert float(used.abs().max()) > 0.5
        starts.append(placement.first)
    assert len(set(starts)) > 80
    assert min(starts) < 3000
    assert max(starts) > len(whole) - FRAMES - 3000
    rows = place([event(3 * FRAMES)] * 2, FRAMES, Generator())[1]
    assert bool((rows != 0).all())  # both fill the mixture, from different points
    assert not torch.equal(rows[0], rows[1])


def test_silence_around_a_sound_does_not_count_as_sound() -> None:
    hiss = 0.01 * torch.randn(8192, generator=Generator())  # 40 dB below
    hiss[2048:4096] += torch.randn(2048, generator=seeded(1))
    assert sounding_blocks(hiss).tolist() == list(range(8, 16))
    for draw in many(50):
        first, second = draw_placements([hiss, event(256)], frames=20_000, generator=draw)
        assert first.onset <= second.onset < first.onset + 2048


@pytest.mark.parametrize("frames", [256, 300, 5000])
def test_any_mixture_holds_any_signals_but_silence(frames: int) -> None:
    signals = [torch.ones(1), event(255), event(1000, 400, 77), event(9001)]
    for draw in many(30):
        rows = place(signals, frames, draw)[1]
        assert rows.shape == (4, frames)
        assert bool(torch.isfinite(rows).all())
        assert 10 * rows.square().mean(1).log10().numpy() == pytest.approx([-22.5] * 4, abs=2.51)
    for silent in (torch.zeros(500), torch.zeros(0)):
        with pytest.raises(ValueError, match=r"signals\[1\] is silent or empty: leave it out"):
            place([event(10), silent], frames, Generator())
    with pytest.raises(ValueError, match="frames=255 is too short: give 256 or more"):
        place([event(10)], 255, Generator())


def recording(name: str, label: str | None = None, speaker: str | None = None) -> Recording:
    return Recording(name=name, path=Path(f"{name}.wav"), label=label, speaker=speaker)


def test_speakers_and_classes_of_a_mixture_differ_and_are_drawn_evenly() -> None:
    speech = [recording(f"a{n}", speaker="a") for n in range(50)]
    speech += [recording(name, speaker=name) for name in ("b", "c")]
    sounds = [recording(f"x{n}", label="x") for n in range(50)]
    sounds += [recording(name, label=name) for name in ("y", "z")]
    pairs: Counter[tuple[str | None, ...]] = Counter()
    for draw in many(600):
        pairs[tuple(one.speaker for one in draw_recordings("2speech", speech, (), draw))] += 1
    assert len(pairs) == 6  # every ordered pair of three
    assert min(pairs.values()) > 60
    used = {draw_recordings("speech_2sounds", speech, sounds, draw)[0].name for draw in many(300)}
    assert len(used) > 40
    for draw in many(50):
        three = draw_recordings("3sounds", (), sounds, draw)
        assert {one.label for one in three} == {"x", "y", "z"}
        drawn = draw_recordings("speech_2sounds", speech, sounds, draw)
        assert [one.label is None for one in drawn] == [True, False, False]
        assert drawn[1].label != drawn[2].label


def test_too_few_speakers_or_classes_are_refused() -> None:
    one, two = recording("a", speaker="a"), recording("x", label="x")
    for task, speech, sounds, message in (
        ("2speech", [one, one], [], "speech: 2 different speakers are needed, but the corpus has 1"),
        ("speech_2sounds", [one], [two], "sounds: 2 different classes are needed, but the corpus has 1"),
        ("2sounds", [], [one], r"sounds: a\.wav has no class: leave it out, or name it"),
        ("4sounds", [], [], "task='4sounds' is unknown: use one of speech_sound"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_recordings(task, speech, sounds, Generator())


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """VCTK of four speakers, two of them for testing, and FSDKaggle2018 of three classes, at 8 kHz."""
    base = tmp_path_factory.mktemp("corpora")
    for index, speaker in enumerate(("p225", "p226", "p227", "p228")):
        for number in range(3):
            file = base / "vctk" / "wav48" / speaker / f"{speaker}_{number:03d}.wav"
            audio(file, 9000 + 999 * number, 200 + 50 * index)
    lines = ["fname,label,usage,freesound_id,license"]
    for index, label in enumerate(("Bark", "Gong", "Hi-hat")):
        for number in range(3):
            file = base / "fsd" / "FSDKaggle2018.audio_test" / f"{index}{number:07x}.wav"
            audio(file, 2000 + 9000 * number, 1000 + 500 * index)
            lines.append(f"{file.name},{label},Public,0,Attribution")
    table = base / "fsd" / "FSDKaggle2018.meta" / "test_post_competition_scoring_clips.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n")
    return {"VCTK": base / "vctk", "FSD": base / "fsd"}


def run(task: str, out: Path, corpora: dict[str, Path], *more: str) -> int:
    options = ["--speech", str(corpora["VCTK"]), "--sounds", str(corpora["FSD"]), "--test-speakers", "2"]
    return main([task, str(out), *options, "--seconds", "1.5", "--sample-rate", "16000", *more])


def listing(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LISTING).read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_a_written_task_is_its_own_description(task: str, corpora: dict[str, Path], tmp_path: Path) -> None:
    assert run(task, tmp_path / "task", corpora, "--count", "3") == 0
    items = manifest(tmp_path / "task" / MANIFEST)
    assert len(items) == 3
    for info in (soundfile.info(file) for item in items for file in item.files):
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 24_000, "FLOAT")
    reader = Reader(16_000, 1)
    for item, line in zip(items, listing(tmp_path / "task"), strict=True):
        assert item.name == line["name"]
        assert tuple(item.references) == TASKS[task]
        mixed, *rows = (read_audio(file)[0] for file in item.files)
        sources = torch.cat(rows)
        assert torch.equal(mixed[0], sources.sum(0))
        signals = [reader.read(Path(file), 0, reader.length(Path(file)))[0] for file in line["files"]]
        columns = zip(
            *(line[name] for name in ("first", "frames", "offsets", "onsets", "level_db")), strict=True
        )
        names = ("first", "frames", "offset", "onset", "level_db")
        placements = [Placement(**dict(zip(names, column, strict=True))) for column in columns]
        assert torch.equal(apply_placements(signals, placements, sources.shape[1]), sources)
        rows = zip(TASKS[task], line["labels"], line["speakers"], line["files"], strict=True)
        for name, label, speaker, file in rows:
            assert (label is None) == (speaker is not None) == name.startswith("sp")
            assert speaker in (None, "p227", "p228")
            assert Path(file).parent.name in (speaker, "FSDKaggle2018.audio_test")
        for onset, signal in zip(line["onsets"], sources, strict=True):
            # what was resampled from 8 kHz begins to sound within a block of its stated onset
            sounding = (signal.abs() > 0.03 * signal.abs().max()).nonzero()[:, 0]
            assert onset - 2 <= int(sounding[0]) <= onset + 256


def test_same_seed_same_samples_and_few_mixtures_are_the_first_of_many(
    corpora: dict[str, Path], tmp_path: Path
) -> None:
    for out, *more in (("a", "3", "0"), ("b", "2", "0"), ("c", "2", "1")):
        assert run("speech_2sounds", tmp_path / out, corpora, "--count", more[0], "--seed", more[1]) == 0
    for file in (f"{part}/000{number}.wav" for part in ("mix", "s1", "s2", "s3") for number in (0, 1)):
        one, other, third = (read_audio(tmp_path / out / file)[0] for out in "abc")
        assert torch.equal(one, other)
        assert not torch.equal(one, third)
    lines = listing(tmp_path / "a")
    assert len({tuple(line["files"]) for line in lines}) == len({line["seed"] for line in lines}) == 3
    # and a task is replaced as a whole; test_synthetic_corpora.py tests what a full folder keeps
    assert run("speech_2sounds", tmp_path / "a", corpora, "--count", "1") == 1
    assert run("speech_2sounds", tmp_path / "a", corpora, "--count", "1", "--overwrite") == 0
    assert len(list((tmp_path / "a").rglob("*.wav"))) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("2sounds OUT", "sounds: task 2sounds needs it: give --sounds with the corpus's folder"),
        ("speech_sound OUT --sounds FSD", "speech: task speech_sound needs it"),
        ("2sounds OUT --sounds FSD --count 0", "count=0: give 1 to 10000 mixtures"),
        ("2sounds OUT --sounds FSD --seconds 0", "seconds=0.0, sample_rate=16000: give a positive"),
        ("2sounds OUT --sounds FSD --seed -1", "seed=-1 is negative: give 0 or more"),
        ("2sounds OUT --sounds FSD --classes Gong", "sounds: 2 different classes are needed"),
        ("2sounds OUT --sounds FSD --split train", "FSD has no FSDKaggle2018.meta/train_post"),
        ("2speech OUT --speech VCTK", "test_speakers=10, but VCTK/wav48 has 4 to choose from"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    arguments: str,
    reason: str,
    corpora: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = {"OUT": tmp_path / "out", **corpora}
    assert main([str(folders.get(argument, argument)) for argument in arguments.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for name, folder in folders.items():
        line = line.replace(str(folder), name)
    assert reason in line
    assert not (tmp_path / "out").exists()


def test_a_silent_recording_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(800), 8000)
    silent = [
        Recording(name=name, path=tmp_path / "nothing.wav", label=None, speaker=name) for name in ("a", "b")
    ]
    with pytest.raises(ValueError, match=r"nothing\.wav is silent: leave it out of its corpus"):
        write_task("2speech", tmp_path / "out", speech=silent, count=1)
