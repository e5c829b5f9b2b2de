"""Which files the arguments of infer.py name, and where their outputs go."""

import os
from pathlib import Path

import pytest

from encore.cli.inputs import find_inputs, plan_jobs
from encore.cli.output_names import OutputNames, is_writable, without_suffix
from encore.cli.overrides import UserError

OUT = Path("out")
SPEECH = OutputNames(sources=("speech",))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def relatives(argument: Path | str, out: Path = OUT) -> list[str]:
    return [file.relative.as_posix() for file in find_inputs(str(argument), out)]


def test_folder_keeps_its_tree_and_leaves_out_hidden_other_and_output_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/c.FLAC", "b/notes.txt", ".hidden.wav", ".git/x.wav", "out/a.wav", "b/m.mp3")
    assert relatives(tmp_path, tmp_path / "out") == ["a.wav", "b/c.FLAC", "b/m.mp3"]


def test_odd_names_are_literal_even_where_they_look_like_globs_or_lists(tmp_path: Path, monkeypatch) -> None:
    names = ["take[1].wav", "a=b, c.wav", "what*.wav", "@list.wav", "take1.wav", "what1.wav"]
    touch(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    for name in names:
        assert relatives(tmp_path / name) == relatives(name) == [name]
    assert relatives(tmp_path) == sorted(names)


def test_globs_and_lists_name_files_below_what_is_common(tmp_path: Path) -> None:
    touch(tmp_path, "n/x/a [1].wav", "n/y/b.wav", "n/y/b.txt", "n/y/z/c.wav", "#1.wav")
    assert relatives(f"{tmp_path}/n/*/*.wav") == ["x/a [1].wav", "y/b.wav"]
    assert relatives(f"{tmp_path}/n/**").count("y/z/c.wav") >= 1
    lines = [f"{tmp_path}/n/x/a [1].wav", "", "# a comment", f"{tmp_path}/n/y"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines))
    assert relatives(f"@{tmp_path}/list.txt") == ["x/a [1].wav", "y/b.wav", "y/z/c.wav"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.wav", "n/b.wav")
    (tmp_path / "n" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "n" / "loop").symlink_to(tmp_path / "n")
    assert relatives(tmp_path / "n") == ["b.wav", "link/a.wav"]


def test_what_cannot_be_written_gets_wav_behind_its_whole_name(tmp_path: Path) -> None:
    touch(tmp_path, "take.1", "take.2")
    jobs, _ = plan_jobs([f"{tmp_path}/take.1", f"{tmp_path}/take.2"], OUT, SPEECH)
    assert [job.outputs for job in jobs] == [(Path("out/take.1.wav"),), (Path("out/take.2.wav"),)]
    assert not is_writable(Path("a.caf"))
    assert without_suffix(Path("take.1")) == Path("take.1")


def test_colliding_inputs_are_named_and_the_others_planned(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.wav", "y/a.wav", "z/b.wav")
    jobs, faults = plan_jobs([str(p) for p in sorted(tmp_path.glob("*/*.wav"))], tmp_path / "out", SPEECH)
    assert [job.relative.name for job in jobs] == ["b.wav"]
    assert len(faults) == 2
    assert all("x/a.wav" in fault and "y/a.wav" in fault for fault in faults)


def test_the_same_file_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    jobs, faults = plan_jobs([str(tmp_path), f"{tmp_path}/a.wav", f"{tmp_path}/*.wav"], OUT, SPEECH)
    assert (len(jobs), faults) == (1, [])


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    touch(tmp_path, "n/a.wav")
    # a link in the output folder that leads back to the input
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").symlink_to(tmp_path / "n" / "a.wav")
    for argument, out in (("n", "n"), ("n/a.wav", "n"), ("n", "out")):
        jobs, faults = plan_jobs([str(tmp_path / argument)], tmp_path / out, SPEECH)
        assert jobs == []
        assert "overwrit" in faults[0]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{}/empty", "holds no audio file"),
        ("{}/*.wav", "matches no audio file"),
        ("@{}/no.txt", "No such file"),
        ("@{}/empty.txt", "lists no file"),
    ],
)
def test_arguments_that_stand_for_nothing(tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    argument = argument.format(tmp_path)
    jobs, (fault,) = plan_jobs([argument], OUT, SPEECH)
    assert jobs == []
    assert argument in fault
    assert words in fault


def test_names_that_are_not_utf8_stay_usable(tmp_path: Path) -> None:
    try:
        touch(tmp_path, os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    ((job,), _) = plan_jobs([str(tmp_path)], OUT, SPEECH)
    assert job.name == "caf\\xe9.wav"


def named(relative: str, *sources: str, **options: object) -> list[str]:
    names = OutputNames(sources=sources or ("vocals",), **options)
    return [path.as_posix() for path in names.paths(Path(relative), OUT)]


def test_one_output_keeps_the_path_and_several_lie_in_a_folder() -> None:
    assert named("d/a.b.wav") == ["out/d/a.b.wav"]
    assert named("d/a.b.wav", "x", "y") == ["out/d/a.b/x.wav", "out/d/a.b/y.wav"]
    # a residual is one more, named by what it lacks
    assert named("a/song.mp3", residual=True) == ["out/a/song/vocals.mp3", "out/a/song/no_vocals.mp3"]
    assert named("song.wav", "vocals", "bass", residual=True)[2] == "out/song/residual.wav"


def test_a_template_says_where_everything_goes() -> None:
    template = "{folder}/{source} of {track}.{ext}"
    assert named("a/song.flac", template=template) == ["out/a/vocals of song.flac"]
    assert named("song.wav", "x", "y", template=template) == ["out/x of song.wav", "out/y of song.wav"]
    flac = named("a/b/song.wav", "x", "y", template="{track}/{source}.flac")
    assert flac == ["out/song/x.flac", "out/song/y.flac"]
    # names with braces, dots, and no format that can be written
    assert named("a{x}.1.wav", template="{track}_{source}.wav") == ["out/a{x}.1_vocals.wav"]
    assert named("take.1", template="{track}.{ext}") == ["out/take.1.wav"]
    assert named("song.caf", template="{track}.{ext}") == ["out/song.caf.wav"]


def test_one_format_for_all_files() -> None:
    assert named("a/song.wav", container="flac") == ["out/a/song.flac"]
    assert named("song.caf", "x", "y", container="flac") == ["out/song.caf/x.flac", "out/song.caf/y.flac"]
    assert named("song.wav", template="{track}.{ext}", container="flac") == ["out/song.flac"]
    with pytest.raises(UserError, match="--format m4a: cannot be written"):
        named("song.wav", container="m4a")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{track}/{stem}.wav", "{stem} is unknown"),
        ("{track}.wav", "several outputs would have one name"),
        ("/tmp/{source}.wav", "must stay below -o"),
        ("../{source}.wav", "must stay below -o"),
        ("{track}/{source}", "is no audio file"),
        ("{source}.txt", "is no audio file"),
        ("{source}{.wav", "--filename"),
    ],
)
def test_templates_that_do_not_name_outputs(template: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        OutputNames(sources=("a", "b"), template=template)
