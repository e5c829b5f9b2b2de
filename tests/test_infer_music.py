"""What people with songs ask of infer.py: some stems, the rest, names, formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from infer_toys import audio_files, run, separator_file, signals

from encore.metrics import SELF_CONSISTENCY_METRICS
from encore.models.loading import load_separator
from encore.models.wrappers import SelectSources
from encore.reporting.scores import read_scores

STEMS = ("vocals", "drums", "bass")


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return separator_file(tmp_path_factory.mktemp("separators"), "stereo", STEMS, channels=2)


def write_song(folder: Path, name: str = "song.wav", rate: int = 16000, subtype: str = "FLOAT") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signals(9001, rate, 2)[1], rate, subtype=subtype)
    return path


def test_some_sources_are_those_of_the_whole_in_the_order_asked_for(tmp_path: Path, stereo: str) -> None:
    song = write_song(tmp_path)
    arguments = [song, "--separator", stereo, "--method", "one_step", "--no-scores"]
    assert run(*arguments, "-o", tmp_path / "all") == 0
    assert run(*arguments, "-o", tmp_path / "two", "--sources", "bass,vocals") == 0
    assert audio_files(tmp_path / "two") == ["song/bass.wav", "song/vocals.wav"]
    for name in ("song/bass.wav", "song/vocals.wav"):
        expected, _ = soundfile.read(tmp_path / "all" / name)
        found, _ = soundfile.read(tmp_path / "two" / name)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_only_the_chosen_sources_are_refined(stereo: str) -> None:
    whole = load_separator(stereo)
    chosen = SelectSources(whole, ["bass"])
    assert (chosen.sources, chosen.sample_rate, chosen.channels) == (("bass",), 16000, 2)
    mixture = torch.from_numpy(signals(2000, 16000, 2)[1].T[None].astype(np.float32))
    torch.testing.assert_close(chosen(mixture)[:, 0], whole(mixture)[:, 2])


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("length", [9001, 30_000])
def test_estimates_and_residual_sum_to_the_input_at_any_rate_and_length(
    tmp_path: Path, stereo: str, rate: int, length: int
) -> None:
    mixture = signals(length, rate, 2)[1].astype(np.float32)
    soundfile.write(tmp_path / "song.wav", mixture, rate, subtype="FLOAT")
    arguments = [tmp_path / "song.wav", "-o", tmp_path / "out", "--separator", stereo, "--no-scores"]
    # so that a part of the longer song is written before the next one is known
    arguments += ["--method", "one_step", "--segment", 0.5, "--set", "method.overlap_seconds=0.1"]
    assert run(*arguments, "--sources", "vocals", "--residual") == 0
    vocals, rest = (
        soundfile.read(tmp_path / "out" / "song" / name, dtype="float32")[0]
        for name in ("vocals.wav", "no_vocals.wav")
    )
    np.testing.assert_allclose(vocals + rest, mixture, atol=1e-6)
    assert np.abs(vocals).max() > 1e-3
    assert np.abs(rest).max() > 1e-3


def test_a_residual_beside_all_sources_and_a_silent_channel(tmp_path: Path, stereo: str) -> None:
    mixture = signals(9001, 16000, 2)[1].astype(np.float32)
    mixture[:, 1] = 0
    soundfile.write(tmp_path / "song.wav", mixture, 16000, subtype="FLOAT")
    arguments = [tmp_path / "song.wav", "-o", tmp_path / "out", "--separator", stereo, "--no-scores"]
    assert run(*arguments, "--method", "one_step", "--residual") == 0
    written = [f"song/{name}.wav" for name in (*STEMS, "residual")]
    assert audio_files(tmp_path / "out") == sorted(written)
    total = sum(soundfile.read(tmp_path / "out" / name, dtype="float32")[0] for name in written)
    np.testing.assert_allclose(total, mixture, atol=1e-6)


def test_names_by_a_template_and_formats(tmp_path: Path, stereo: str) -> None:
    write_song(tmp_path / "in", "a/song.wav")
    write_song(tmp_path / "in", "b/song.wav")
    arguments = [tmp_path / "in", "--separator", stereo, "--no-scores", "--method", "one_step"]
    arguments += ["--sources", "vocals"]
    names = ["--filename", "{folder}/{track}_{source}.{ext}", "--flac", "--int24"]
    assert run(*arguments, "-o", tmp_path / "out", *names) == 0
    assert audio_files(tmp_path / "out") == ["a/song_vocals.flac", "b/song_vocals.flac"]
    assert soundfile.info(tmp_path / "out" / "a" / "song_vocals.flac").subtype == "PCM_24"


def test_a_template_that_gives_two_inputs_one_name_is_told_before_anything_is_written(
    tmp_path: Path, stereo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_song(tmp_path / "in", "a/song.wav")
    write_song(tmp_path / "in", "b/song.wav")
    arguments = [tmp_path / "in", "-o", tmp_path / "out", "--separator", stereo, "--no-scores"]
    assert run(*arguments, "--filename", "{track}/{source}.wav") == 1
    assert "a --filename that tells them apart" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/**/*.wav"))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--sources", "singing"], "--sources singing: 'singing' is none of vocals, drums, bass"),
        (["--sources", "vocals,vocals"], "give different names"),
        (["--sources", "vocals", "--set", "method.consistency=uniform"], "leave one of them out"),
        (["--filename", "{x}.wav"], "{x} is unknown"),
        (["--format", "m4a"], "--format m4a: cannot be written"),
        (["--flac", "--float32"], "FLAC cannot hold --subtype FLOAT"),
        (["--set", "method.wiener=both"], "wiener=both: choose single or multi"),
        (["--set", "method.level=loud"], "level=loud: choose mixture or own"),
        (["--set", "method.noise=-1"], "noise=-1: give 0 or more"),
    ],
)
def test_options_that_will_not_do(
    tmp_path: Path, stereo: str, capsys: pytest.CaptureFixture[str], options: list[str], fault: str
) -> None:
    song = write_song(tmp_path)
    arguments = [song, "-o", tmp_path / "out", "--separator", stereo, "--no-scores"]
    assert run(*arguments, *options) == 1
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1


def test_sources_in_any_order_have_no_names_to_choose_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    separator = separator_file(tmp_path, "speakers", ("speaker1", "speaker2"))
    song = write_song(tmp_path)
    assert run(song, "-o", tmp_path / "o", "--separator", separator, "--sources", "speaker1") == 1
    assert "come in any order" in capsys.readouterr().err


def test_songs_as_they_lie_in_their_corpora_have_their_references_beside_them(
    tmp_path: Path, stereo: str, few_metrics: None
) -> None:
    for name in ("mixture", *STEMS):
        write_song(tmp_path / "songs" / "Ana - One", f"{name}.wav")
    arguments = [tmp_path / "songs" / "*" / "mixture.wav", "-o", tmp_path / "out", "--separator", stereo]
    assert run(*arguments, "--reference", tmp_path / "songs", "--method", "one_step") == 0
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert set(scores["item"]) == {f"Ana - One/mixture.wav/{stem}" for stem in STEMS}
    assert scores.loc[scores["kind"] == "mixture", "value"].notna().any()


def test_a_mixture_is_not_its_own_reference(tmp_path: Path, stereo: str, few_metrics: None) -> None:
    folder = tmp_path / "songs" / "Ana - One"
    write_song(folder, "mixture.wav")
    soundfile.write(folder / "bass.wav", signals(9001, 16000, 2)[0], 16000, subtype="FLOAT")
    arguments = [folder.parent / "*" / "mixture.wav", "-o", tmp_path / "out", "--separator", stereo]
    options = ["--reference", folder.parent, "--method", "one_step", "--sources", "bass"]
    assert run(*arguments, *options) == 0
    scores = read_scores(tmp_path / "out" / "scores.csv")
    mixture = scores[(scores["kind"] == "mixture") & (scores["metric"] == "si_sdr")]["value"]
    assert float(mixture.iloc[0]) == pytest.approx(9, abs=0.5)  # a tone at 0.2 in noise at 0.05
    (folder / "bass.wav").unlink()
    assert run(*arguments, *options) == 1


@pytest.mark.parametrize("guide", SELF_CONSISTENCY_METRICS)
def test_guides_that_are_not_of_speech(tmp_path: Path, stereo: str, guide: str) -> None:
    song = write_song(tmp_path)
    arguments = [song, "-o", tmp_path / "out", "--separator", stereo, "--sources", "bass", "--no-scores"]
    assert run(*arguments, "--guide", guide, "--steps", 1, "--candidates", 2) == 0
    assert audio_files(tmp_path / "out") == ["song.wav"]
    assert run(*arguments, "--guide", guide, "--dry-run") == 0


def test_progressive_inference_of_one_stem_with_a_wiener_filter(tmp_path: Path, stereo: str) -> None:
    song = write_song(tmp_path)
    arguments = [song, "--separator", stereo, "--method", "progressive", "--sources", "vocals", "--no-scores"]
    written = {}
    for wiener in ("null", "single", "multi"):
        out = tmp_path / wiener
        assert run(*arguments, "-o", out, "--steps", 2, "--set", f"method.wiener={wiener}") == 0
        written[wiener], _ = soundfile.read(out / "song.wav")
    assert np.abs(written["single"] - written["null"]).max() > 1e-4
    assert np.abs(written["multi"] - written["single"]).max() > 1e-4
