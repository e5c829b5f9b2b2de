import os
from pathlib import Path

import pytest

from encore.cli.inputs import find_inputs, plan_jobs
from encore.cli.output_names import OutputNames, is_writable, without_suffix

SPEECH = OutputNames(sources=("speech",))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def relatives(argument: Path | str, out: Path) -> list[str]:
    return [file.relative.as_posix() for file in find_inputs(str(argument), out)]


def test_folder_keeps_its_tree_and_leaves_out_hidden_other_and_output_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/c.FLAC", "b/notes.txt", ".hidden.wav", ".git/x.wav", "out/a.wav", "b/m.mp3")
    assert relatives(tmp_path, tmp_path / "out") == ["a.wav", "b/c.FLAC", "b/m.mp3"]


def test_odd_names_are_literal_even_where_they_look_like_globs(tmp_path: Path) -> None:
    names = ["take[1].wav", "a=b, c.wav", "what*.wav", "@list.wav", "take1.wav", "whatever.wav"]
    touch(tmp_path, *names)
    for name in names:
        assert relatives(tmp_path / name, tmp_path / "out") == [name]
    assert relatives(tmp_path, tmp_path / "out") == sorted(names)


def test_at_sign_of_an_existing_file_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "@list.wav")
    monkeypatch.chdir(tmp_path)
    assert relatives("@list.wav", Path("out")) == ["@list.wav"]


def test_glob_names_files_below_its_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "n/x/1.wav", "n/y/2.wav", "n/y/2.txt", "n/y/z/3.wav")
    assert relatives(f"{tmp_path}/n/*/*.wav", tmp_path / "out") == ["x/1.wav", "y/2.wav"]
    assert relatives(f"{tmp_path}/n/**", tmp_path / "out").count("y/z/3.wav") >= 1


def test_list_names_files_below_their_common_folder(tmp_path: Path) -> None:
    touch(tmp_path, "n/x/a [1].wav", "n/y/b.wav", "n/y/c.wav", "#1.wav")
    lines = [f"{tmp_path}/n/x/a [1].wav", "", "# a comment", f"{tmp_path}/n/y"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines))
    assert relatives(f"@{tmp_path}/list.txt", tmp_path / "out") == ["x/a [1].wav", "y/b.wav", "y/c.wav"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.wav", "n/b.wav")
    (tmp_path / "n" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "n" / "loop").symlink_to(tmp_path / "n")
    assert relatives(tmp_path / "n", tmp_path / "out") == ["b.wav", "link/a.wav"]


def test_output_layout_of_one_and_several_sources(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.b.wav")
    (file,) = find_inputs(str(tmp_path), Path("out"))
    assert SPEECH.paths(file.relative, Path("out")) == (Path("out/d/a.b.wav"),)
    several = OutputNames(sources=("speech", "noise")).paths(file.relative, Path("out"))
    assert several == (Path("out/d/a.b/speech.wav"), Path("out/d/a.b/noise.wav"))


def test_what_cannot_be_written_gets_wav_behind_its_whole_name(tmp_path: Path) -> None:
    touch(tmp_path, "take.1", "take.2")
    jobs, _ = plan_jobs([f"{tmp_path}/take.1", f"{tmp_path}/take.2"], Path("out"), SPEECH)
    assert [job.outputs for job in jobs] == [(Path("out/take.1.wav"),), (Path("out/take.2.wav"),)]
    assert not is_writable(Path("a.caf"))
    assert without_suffix(Path("take.1")) == Path("take.1")


def test_colliding_inputs_are_named_and_the_others_planned(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.wav", "y/a.wav", "z/b.wav")
    jobs, faults = plan_jobs([str(p) for p in sorted(tmp_path.glob("*/*.wav"))], tmp_path / "out", SPEECH)
    assert [job.relative.name for job in jobs] == ["b.wav"]
    assert len(faults) == 2
    for fault in faults:
        assert "x/a.wav" in fault
        assert "y/a.wav" in fault


def test_the_same_file_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    jobs, faults = plan_jobs(
        [str(tmp_path), f"{tmp_path}/a.wav", f"{tmp_path}/*.wav"], tmp_path / "out", SPEECH
    )
    assert len(jobs) == 1
    assert faults == []


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    touch(tmp_path, "n/a.wav")
    for argument in (tmp_path / "n", tmp_path / "n" / "a.wav"):
        jobs, faults = plan_jobs([str(argument)], tmp_path / "n", SPEECH)
        assert jobs == []
        assert "overwrit" in faults[0]
    # a link in the output folder that leads back to the input
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").symlink_to(tmp_path / "n" / "a.wav")
    jobs, faults = plan_jobs([str(tmp_path / "n")], tmp_path / "out", SPEECH)
    assert jobs == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{}/empty", "holds no audio file"),
        ("{}/*.wav", "matches no audio file"),
        ("@{}/no.txt", "No such file"),
    ],
)
def test_arguments_that_stand_for_nothing(tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    argument = argument.format(tmp_path)
    jobs, faults = plan_jobs([argument], tmp_path / "out", SPEECH)
    assert jobs == []
    assert len(faults) == 1
    assert argument in faults[0]
    assert words in faults[0]


def test_names_that_are_not_utf8_stay_usable(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    ((job,), _) = plan_jobs([str(tmp_path)], tmp_path / "out", SPEECH)
    assert job.name == "caf\\xe9.wav"
