from __future__ import annotations

from pathlib import Path

import pytest

from encore.cli.output_names import OutputNames
from encore.cli.overrides import UserError

OUT = Path("out")


def named(relative: str, *sources: str, **options: object) -> list[str]:
    names = OutputNames(sources=sources or ("vocals",), **options)
    return [path.as_posix() for path in names.paths(Path(relative), OUT)]


def test_a_residual_is_one_output_more_and_named_by_what_it_lacks() -> None:
    assert named("a/song.mp3", residual=True) == ["out/a/song/vocals.mp3", "out/a/song/no_vocals.mp3"]
    assert named("song.wav", "vocals", "bass", residual=True)[2] == "out/song/residual.wav"


def test_a_template_says_where_everything_goes() -> None:
    template = "{folder}/{source} of {track}.{ext}"
    assert named("a/song.flac", template=template) == ["out/a/vocals of song.flac"]
    assert named("song.wav", "x", "y", template=template) == ["out/x of song.wav", "out/y of song.wav"]
    flac = named("a/b/song.wav", "x", "y", template="{track}/{source}.flac")
    assert flac == ["out/song/x.flac", "out/song/y.flac"]


def test_names_with_braces_dots_and_no_writable_format() -> None:
    assert named("a{x}.1.wav", template="{track}_{source}.wav") == ["out/a{x}.1_vocals.wav"]
    assert named("take.1", template="{track}.{ext}") == ["out/take.1.wav"]
    assert named("song.caf", template="{track}.{ext}") == ["out/song.caf.wav"]


def test_one_format_for_all_files() -> None:
    assert named("a/song.wav", container="flac") == ["out/a/song.flac"]
    assert named("song.caf", "x", "y", container="flac") == ["out/song.caf/x.flac", "out/song.caf/y.flac"]
    assert named("song.wav", template="{track}.{ext}", container="flac") == ["out/song.flac"]


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
def test_templates_that_will_not_do(template: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        OutputNames(sources=("a", "b"), template=template)


def test_a_format_that_cannot_be_written() -> None:
    with pytest.raises(UserError, match="--format m4a: cannot be written"):
        OutputNames(sources=("a",), container="m4a")
