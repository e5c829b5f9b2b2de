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
from torch import Generator, Tensor

from encore.data.audio import read_audio
from encore.data.manifest import manifest
from encore.data.mixture_recipes import (
    LISTING,
    MANIFEST,
    TASKS,
    draw_recordings,
    main,
    task_mixtures,
    write_task,
)
from encore.data.placement import Placement, apply_placements, draw_placements, place_sources, sounding_blocks
from encore.data.reading import Reader
from encore.data.source_corpora import Recording

FRAMES = 64_000


def _event(frames: int, before: int = 0, after: int = 0, seed: int = 0) -> Tensor:
    """Noise between silences."""
    noise = torch.randn(frames, generator=Generator().manual_seed(seed))
    return torch.cat((torch.zeros(before), noise, torch.zeros(after)))


def _span(row: Tensor) -> tuple[int, int]:
    """Where a row without noise is not zero."""
    heard = row.nonzero()[:, 0]
    return int(heard[0]), int(heard[-1]) + 1


def _many(count: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in range(count)]


def test_a_source_lies_whole_at_any_place_of_the_canvas() -> None:
    event = _event(16_000)
    spans = [_span(place_sources([event], frames=FRAMES, generator=draw)[0]) for draw in _many(300)]
    assert {end - begin for begin, end in spans} == {16_000}
    begins = np.array([begin for begin, _ in spans]) / (FRAMES - 16_000)
    assert begins.min() >= 0
    assert begins.max() <= 1
    # uniform: mean 1/2, standard deviation 1/sqrt(12), of 300 draws
    assert begins.mean() == pytest.approx(0.5, abs=3 / np.sqrt(12 * 300))
    assert begins.std() == pytest.approx(1 / np.sqrt(12), abs=0.03)


def test_a_later_source_begins_to_sound_while_the_one_before_it_sounds() -> None:
    shapes = ((12_800, 0, 9000), (2560, 5120, 0), (25_600, 256, 512))
    events = [_event(*shape, seed=index) for index, shape in enumerate(shapes)]
    gaps = []
    for draw in _many(200):
        rows = place_sources(events, frames=FRAMES, generator=draw)
        spans = [_span(row) for row in rows]
        assert [end - begin for begin, end in spans] == [12_800, 2560, 25_600]
        for (begin, end), (later, _) in pairwise(spans):
            assert begin <= later < end
        gaps.append([(spans[1][0] - spans[0][0]) / 12_800, (spans[2][0] - spans[1][0]) / 2560])
    # in any part of it, first to last
    assert np.min(gaps, 0).max() < 0.03
    assert np.max(gaps, 0).min() > 0.97


def test_the_places_told_are_those_of_the_sound_itself() -> None:
    events = [_event(5120, 1024, 3000), _event(7680, 512)]
    for draw in _many(20):
        places = draw_placements(events, frames=FRAMES, generator=draw)
        rows = apply_placements(events, places, FRAMES)
        assert [place.onset for place in places] == [_span(row)[0] for row in rows]
    same = [
        apply_placements(events, draw_placements(events, frames=FRAMES, generator=draw), FRAMES)
        for draw in _many(3)
    ]
    again = [place_sources(events, frames=FRAMES, generator=draw) for draw in _many(3)]
    assert all(torch.equal(one, other) for one, other in zip(same, again, strict=True))
    assert not torch.equal(same[0], same[1])


def test_levels_are_exact_over_the_canvas_and_evenly_drawn() -> None:
    events = [1e-4 * _event(900), 30 * _event(70_000)]
    levels = []
    for draw in _many(150):
        rows = place_sources(events, frames=FRAMES, generator=draw).double()
        levels.append((10 * rows.square().mean(1).log10()).tolist())
    assert np.min(levels) >= -25 - 1e-4
    assert np.max(levels) <= -20 + 1e-4
    assert np.mean(levels, 0) == pytest.approx([-22.5, -22.5], abs=0.4)
    places = draw_placements(events, frames=FRAMES, generator=Generator(), level_db=(-40, -40))
    exact = apply_placements(events, places, FRAMES).double().square().mean(1)
    assert 10 * exact.log10().numpy() == pytest.approx([-40, -40], abs=1e-4)


def test_what_is_longer_than_the_canvas_is_cut_where_it_sounds() -> None:
    # 1 s of sound, 5 s of near silence, 1 s of sound: some cuts would hold nothing
    whole = torch.cat((_event(16_000), 1e-4 * _event(80_000, seed=1), _event(16_000, seed=2)))
    starts = []
    for draw in _many(100):
        (place,) = draw_placements([whole], frames=FRAMES, generator=draw)
        assert place.offset == 0 or place.frames < FRAMES
        used = whole[place.first : place.first + place.frames]
        assert float(used.abs().max()) > 0.5
        starts.append(place.first)
    assert len(set(starts)) > 80
    assert min(starts) < 3000
    assert max(starts) > len(whole) - FRAMES - 3000
    loud = _event(3 * FRAMES)
    rows = place_sources([loud, loud], frames=FRAMES, generator=Generator())
    assert bool((rows != 0).all())  # both fill the canvas, from different places
    assert not torch.equal(rows[0], rows[1])


def test_silence_around_a_sound_does_not_count_as_sound() -> None:
    hiss = 0.01 * torch.randn(8192, generator=Generator())  # 40 dB below
    hiss[2048:4096] += torch.randn(2048, generator=Generator().manual_seed(1))
    assert sounding_blocks(hiss).tolist() == list(range(8, 16))
    later = _event(256)
    for draw in _many(50):
        first, second = draw_placements([hiss, later], frames=20_000, generator=draw)
        assert first.onset <= second.onset < first.onset + 2048


@pytest.mark.parametrize("frames", [256, 300, 5000])
def test_any_canvas_holds_any_signals(frames: int) -> None:
    signals = [torch.ones(1), _event(255), _event(1000, 400, 77), _event(9001)]
    for draw in _many(30):
        rows = place_sources(signals, frames=frames, generator=draw)
        assert rows.shape == (4, frames)
        assert bool(torch.isfinite(rows).all())
        assert 10 * rows.square().mean(1).log10().numpy() == pytest.approx([-22.5] * 4, abs=2.51)


def test_nothing_is_clipped() -> None:
    rows = place_sources([_event(32)] * 2, frames=FRAMES, generator=Generator())
    assert float(rows.abs().max()) > 2


@pytest.mark.parametrize("silent", [torch.zeros(500), torch.zeros(0)])
def test_silence_cannot_be_placed(silent: Tensor) -> None:
    with pytest.raises(ValueError, match=r"signals\[1\] is silent or empty: leave it out"):
        place_sources([_event(10), silent], frames=256, generator=Generator())
    with pytest.raises(ValueError, match="frames=255 is too short: give 256 or more"):
        place_sources([_event(10)], frames=255, generator=Generator())


def _recording(name: str, label: str | None = None, speaker: str | None = None) -> Recording:
    return Recording(name=name, path=Path(f"{name}.wav"), label=label, speaker=speaker)


def test_speakers_and_classes_of_a_mixture_differ_and_are_drawn_evenly() -> None:
    speech = [_recording(f"a{n}", speaker="a") for n in range(50)]
    speech += [_recording(name, speaker=name) for name in ("b", "c")]
    sounds = [_recording(f"x{n}", label="x") for n in range(50)]
    sounds += [_recording(name, label=name) for name in ("y", "z")]
    pairs: Counter[tuple[str | None, ...]] = Counter()
    for draw in _many(600):
        pairs[tuple(one.speaker for one in draw_recordings("2speech", speech, (), draw))] += 1
    assert len(pairs) == 6  # every ordered pair of three
    assert min(pairs.values()) > 60
    used = {draw_recordings("speech_2sounds", speech, sounds, draw)[0].name for draw in _many(300)}
    assert len(used) > 40
    for draw in _many(50):
        three = draw_recordings("3sounds", (), sounds, draw)
        assert {one.label for one in three} == {"x", "y", "z"}
        drawn = draw_recordings("speech_2sounds", speech, sounds, draw)
        assert [one.label is None for one in drawn] == [True, False, False]
        assert drawn[1].label != drawn[2].label


def test_too_few_speakers_or_classes_are_refused() -> None:
    one, two = _recording("a", speaker="a"), _recording("x", label="x")
    with pytest.raises(ValueError, match="speech: 2 different speakers are needed, but the corpus has 1"):
        draw_recordings("2speech", [one, one], [], Generator())
    with pytest.raises(ValueError, match="sounds: 2 different classes are needed, but the corpus has 1"):
        draw_recordings("speech_2sounds", [one], [two], Generator())
    with pytest.raises(ValueError, match=r"sounds: a\.wav has no class: leave it out, or name it"):
        draw_recordings("2sounds", [], [one], Generator())
    with pytest.raises(ValueError, match="task='4sounds' is unknown: use one of speech_sound"):
        draw_recordings("4sounds", [], [], Generator())


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """VCTK of four speakers, two of them for testing, and FSDKaggle2018 of three classes, at 8 kHz."""
    base = tmp_path_factory.mktemp("corpora")
    for index, speaker in enumerate(("p225", "p226", "p227", "p228")):
        for number in range(3):
            audio(
                base / f"vctk/wav48/{speaker}/{speaker}_{number:03d}.wav",
                9000 + 999 * number,
                200 + 50 * index,
            )
    lines = ["fname,label,usage,freesound_id,license"]
    for index, label in enumerate(("Bark", "Gong", "Hi-hat")):
        for number in range(3):
            file = f"{index}{number:07x}.wav"
            audio(base / "fsd/FSDKaggle2018.audio_test" / file, 2000 + 9000 * number, 1000 + 500 * index)
            lines.append(f"{file},{label},Public,0,Attribution")
    (base / "fsd/FSDKaggle2018.meta").mkdir()
    (base / "fsd/FSDKaggle2018.meta/test_post_competition_scoring_clips.csv").write_text(
        "\n".join(lines) + "\n"
    )
    return base / "vctk", base / "fsd"


def _run(task: str, out: Path, corpora: tuple[Path, Path], *more: str) -> int:
    speech, sounds = corpora
    options = ["--speech", str(speech), "--sounds", str(sounds), "--test-speakers", "2", "--seconds", "1.5"]
    return main([task, str(out), *options, "--sample-rate", "16000", *more])


@pytest.mark.parametrize("task", TASKS)
def test_a_written_task_is_its_own_description(task: str, corpora: tuple[Path, Path], tmp_path: Path) -> None:
    assert _run(task, tmp_path / "task", corpora, "--count", "5") == 0
    items = manifest(tmp_path / "task" / MANIFEST)
    assert len(items) == 5
    for info in (soundfile.info(file) for item in items for file in item.files):
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 24_000, "FLOAT")
    mixtures = task_mixtures(tmp_path / "task")
    assert [mixture.item for mixture in mixtures] == items
    lines = [json.loads(line) for line in (tmp_path / "task" / LISTING).read_text().splitlines()]
    for mixture, line in zip(mixtures, lines, strict=True):
        assert mixture.name == line["name"]
        assert tuple(mixture.item.references) == TASKS[task]
        sources = torch.cat([read_audio(file)[0] for file in mixture.item.references.values()])  # type: ignore[arg-type]
        torch.testing.assert_close(read_audio(mixture.item.mixture)[0][0], sources.sum(0), rtol=0, atol=0)
        levels = 10 * sources.double().square().mean(1).log10()
        assert levels.tolist() == pytest.approx(line["level_db"], abs=1e-4)
        reader = Reader(16_000, 1)
        files = [Path(file) for file in line["files"]]
        signals = [reader.read(file, 0, reader.length(file))[0] for file in files]
        columns = ("first", "frames", "offsets", "onsets", "level_db")
        places = [
            Placement(first=first, frames=frames, offset=offset, onset=onset, level_db=level)
            for first, frames, offset, onset, level in zip(*map(line.get, columns), strict=True)
        ]
        torch.testing.assert_close(
            apply_placements(signals, places, sources.shape[1]), sources, rtol=0, atol=0
        )
        for name, label, speaker, file, onset, signal in zip(
            TASKS[task],
            mixture.labels,
            mixture.speakers,
            files,
            line["onsets"],
            sources,
            strict=True,
        ):
            assert (label is None) == (speaker is not None) == name.startswith("sp")
            assert speaker in (None, "p227", "p228")
            assert file.parent.name in (speaker, "FSDKaggle2018.audio_test")
            # what was resampled from 8 kHz begins to sound within a block of where it is said to
            heard = (signal.abs() > 0.03 * signal.abs().max()).nonzero()[:, 0]
            assert onset - 2 <= int(heard[0]) <= onset + 256


def test_same_seed_same_samples_and_few_mixtures_are_the_first_of_many(
    corpora: tuple[Path, Path], tmp_path: Path
) -> None:
    for out, more in (
        ("a", ["--count", "3"]),
        ("b", ["--count", "2"]),
        ("c", ["--count", "2", "--seed", "1"]),
    ):
        assert _run("speech_2sounds", tmp_path / out, corpora, *more) == 0
    for part in ("mix", "s1", "s2", "s3"):
        for name in ("0000.wav", "0001.wav"):
            one, other, third = (read_audio(tmp_path / out / part / name)[0] for out in "abc")
            assert torch.equal(one, other)
            assert not torch.equal(one, third)
    files, seeds = (
        [json.loads(line)[key] for line in (tmp_path / "a" / LISTING).open()] for key in ("files", "seed")
    )
    assert len({*map(tuple, files)}) == len(set(seeds)) == 3


def test_a_full_folder_is_kept_unless_told(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert _run("2sounds", tmp_path, corpora, "--count", "1") == 1
    assert _run("2sounds", tmp_path, corpora, "--count", "2", "--overwrite") == 0
    assert _run("2sounds", tmp_path, corpora, "--count", "1", "--overwrite") == 0
    assert len(list(tmp_path.rglob("*.wav"))) == 3
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["2sounds", "OUT"], "sounds: task 2sounds needs it: give --sounds with the corpus's folder"),
        (["speech_sound", "OUT", "--sounds", "FSD"], "speech: task speech_sound needs it"),
        (["2sounds", "OUT", "--sounds", "FSD", "--count", "0"], "count=0: give 1 to 10000 mixtures"),
        (
            ["2sounds", "OUT", "--sounds", "FSD", "--seconds", "0"],
            "seconds=0.0, sample_rate=16000: give a positive",
        ),
        (["2sounds", "OUT", "--sounds", "FSD", "--seed", "-1"], "seed=-1 is negative: give 0 or more"),
        (
            ["2sounds", "OUT", "--sounds", "FSD", "--classes", "Gong"],
            "sounds: 2 different classes are needed",
        ),
        (
            ["2sounds", "OUT", "--sounds", "FSD", "--split", "train"],
            "FSD has no FSDKaggle2018.meta/train_post",
        ),
        (["2speech", "OUT", "--speech", "VCTK"], "test_speakers=10 of 4 speakers in VCTK/wav48"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    arguments: list[str],
    reason: str,
    corpora: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"OUT": str(tmp_path / "out"), "VCTK": str(corpora[0]), "FSD": str(corpora[1])}
    assert main([places.get(argument, argument) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for name, place in places.items():
        said = said.replace(place, name)
    assert reason in said
    assert not (tmp_path / "out").exists()


def test_a_silent_recording_is_named(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(800), 8000)
    silent = Recording(name="n", path=tmp_path / "nothing.wav", label=None, speaker="a")
    other = Recording(name="m", path=tmp_path / "nothing.wav", label=None, speaker="b")
    with pytest.raises(ValueError, match=r"nothing\.wav is silent: leave it out of its corpus"):
        write_task("2speech", tmp_path / "out", speech=[silent, other], count=1)


def test_what_sounds_for_a_moment_only_is_not_clipped(tmp_path: Path) -> None:
    clicks = [
        Recording(name=label, path=audio(tmp_path / f"{label}.wav", 80, hertz), label=label)
        for label, hertz in (("Cowbell", 700.0), ("Knock", 300.0))
    ]
    write_task("2sounds", tmp_path / "out", sounds=clicks, count=3, sample_rate=8000)
    for mixture in task_mixtures(tmp_path / "out"):
        mixed, *sources = (read_audio(file)[0] for file in mixture.item.files)
        # 80 of 32000 samples hold all of the energy: 26 dB more than over the canvas
        assert float(mixed.abs().max()) > 10 ** (-25 / 20) * np.sqrt(2 * 32_000 / 80)
        assert torch.equal(mixed, sources[0] + sources[1])


def test_lists_that_do_not_agree_are_refused(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    assert _run("2sounds", tmp_path, corpora, "--count", "2") == 0
    listing = tmp_path / LISTING
    lines = listing.read_text().splitlines()
    listing.write_text(lines[0] + "\n")
    with pytest.raises(
        ValueError, match=r"sources\.jsonl does not match manifest\.jsonl \('0001'\): write the"
    ):
        task_mixtures(tmp_path)
    listing.write_text("\n".join(lines).replace('"speakers": [null, null]', '"speakers": [null]'))
    with pytest.raises(ValueError, match=r"does not match manifest\.jsonl \(0000 has 2 sources\)"):
        task_mixtures(tmp_path)
    listing.unlink()
    with pytest.raises(FileNotFoundError, match=r"sources\.jsonl is missing: write the task again"):
        task_mixtures(tmp_path)
