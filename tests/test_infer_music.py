"""What people with songs use infer.py for: some stems, the rest, names, formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from infer_toys import audio_files, one_step, read, run, scores, separator_file, signals

from encore.metrics import SELF_CONSISTENCY_METRICS

STEMS = ("vocals", "drums", "bass")


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return separator_file(tmp_path_factory.mktemp("separators"), "stereo", STEMS, channels=2)


def write_song(path: Path, frames: int = 9001, rate: int = 16000, clean: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signals(frames, rate, 2)[0 if clean else 1], rate, subtype="FLOAT")
    return path


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_some_sources_are_those_of_the_whole_in_the_order_given(tmp_path: Path, stereo: str) -> None:
    song = write_song(tmp_path / "song.wav")
    assert run(*one_step(tmp_path / "all", stereo, song)) == 0
    assert run(*one_step(tmp_path / "two", stereo, song), "--sources", "bass,vocals") == 0
    assert audio_files(tmp_path / "two") == ["out/song/bass.wav", "out/song/vocals.wav"]
    for name in audio_files(tmp_path / "two"):
        close(read(tmp_path / "two" / name), read(tmp_path / "all" / name))


@pytest.mark.parametrize(
    ("rate", "length"), [(16000, 9001), (16000, 30_000), (44100, 30_000), (44100, 70_000)]
)
def test_estimates_and_residual_sum_to_the_input_at_any_rate_and_length(
    tmp_path: Path, stereo: str, rate: int, length: int
) -> None:
    song = write_song(tmp_path / "song.wav", length, rate)
    # so that a part of the longer song is written before the next one is known
    cuts = ["--segment", 0.5, "--set", "method.overlap_seconds=0.1"]
    assert run(*one_step(tmp_path, stereo, song), *cuts, "--sources", "vocals", "--residual") == 0
    vocals, rest = (read(tmp_path / "out" / "song" / name) for name in ("vocals.wav", "no_vocals.wav"))
    close(vocals + rest, read(song))
    assert min(vocals.abs().max(), rest.abs().max()) > 1e-3


def test_a_residual_beside_all_sources_and_a_silent_channel(tmp_path: Path, stereo: str) -> None:
    mixture = signals(9001, 16000, 2)[1] * [1, 0]
    soundfile.write(tmp_path / "song.wav", mixture, 16000, subtype="FLOAT")
    assert run(*one_step(tmp_path, stereo, tmp_path / "song.wav"), "--residual") == 0
    written = [f"song/{name}.wav" for name in (*STEMS, "residual")]
    assert audio_files(tmp_path / "out") == sorted(written)
    close(sum(read(tmp_path / "out" / name) for name in written), read(tmp_path / "song.wav"))


def test_names_by_a_template_and_formats(tmp_path: Path, stereo: str, capsys) -> None:
    for name in ("a/song.wav", "b/song.wav"):
        write_song(tmp_path / "noisy" / name)
    arguments = [*one_step(tmp_path, stereo), "--sources", "vocals"]
    # two inputs of one name are found before anything is written
    assert run(*arguments, "--filename", "{track}/{source}.wav") == 1
    assert "a --filename that tells them apart" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    names = ["--filename", "{folder}/{track}_{source}.{ext}", "--flac", "--int24"]
    assert run(*arguments, *names) == 0
    assert audio_files(tmp_path / "out") == ["a/song_vocals.flac", "b/song_vocals.flac"]
    assert soundfile.info(tmp_path / "out" / "a" / "song_vocals.flac").subtype == "PCM_24"


def test_sources_in_any_order_have_no_names_to_choose_by(tmp_path: Path, capsys) -> None:
    separator = separator_file(tmp_path, "speakers", ("speaker1", "speaker2"))
    song = write_song(tmp_path / "song.wav")
    assert run(*one_step(tmp_path, separator, song), "--sources", "speaker1") == 1
    assert "come in any order" in capsys.readouterr().err


@pytest.mark.usefixtures("few_metrics")
def test_songs_as_they_lie_in_their_corpora_have_their_references_beside_them(
    tmp_path: Path, stereo: str
) -> None:
    folder = tmp_path / "songs" / "Ana - One"
    for name in ("mixture", *STEMS):
        write_song(folder / f"{name}.wav", clean=name == "bass")
    arguments = [folder.parent / "*" / "mixture.wav", "-o", tmp_path / "out", "--separator", stereo]
    options = ["--reference", folder.parent, "--method", "one_step"]
    assert run(*arguments, *options) == 0
    table = scores(tmp_path / "out").set_index(["item", "kind", "metric"])["value"]
    assert set(table.index.get_level_values(0)) == {f"Ana - One/mixture.wav/{stem}" for stem in STEMS}
    # a tone at 0.2 in noise at 0.05
    assert float(table["Ana - One/mixture.wav/bass", "mixture", "si_sdr"]) == pytest.approx(9, abs=0.5)
    # a mixture is not its own reference
    (folder / "bass.wav").unlink()
    assert run(*arguments, *options, "--sources", "bass") == 1


@pytest.mark.parametrize("guide", SELF_CONSISTENCY_METRICS)
def test_guides_that_are_not_of_speech(tmp_path: Path, stereo: str, guide: str) -> None:
    song = write_song(tmp_path / "song.wav")
    arguments = [song, "-o", tmp_path / "out", "--separator", stereo, "--sources", "bass", "--no-scores"]
    assert run(*arguments, "--guide", guide, "--steps", 1, "--candidates", 2) == 0
    assert read(tmp_path / "out" / "song.wav").abs().max() > 1e-3
    assert run(*arguments, "--guide", guide, "--dry-run") == 0


def test_progressive_inference_of_one_stem_with_a_wiener_filter(tmp_path: Path, stereo: str) -> None:
    song = write_song(tmp_path / "song.wav")
    arguments = [song, "--separator", stereo, "--method", "progressive", "--sources", "vocals", "--no-scores"]
    written = []
    for wiener in ("null", "single", "multi"):
        out = tmp_path / wiener
        assert run(*arguments, "-o", out, "--steps", 2, "--set", f"method.wiener={wiener}") == 0
        written.append(read(out / "song.wav").numpy())
    assert all(np.abs(np.diff(written, axis=0)).max((1, 2)) > 1e-4)
