"""Corpora of songs and their stems.

A *song* is a folder. Every audio file in it is a stem under the file's name, and so is every folder with
audio files, whose sum it is; ``mixture`` is the mixed recording, without which the mixture is the sum of the
references. A *grouping* lists the stems of every source:

- a list of names: each source is the one stem of that name, which every song must have;
- a mapping of sources to stems: each source is the sum of those stems that a song has, silence if it has
  none. One source may have None in place of a list, for all stems that no other source has.

Where a grouping may be None, configs have ``null``, because Hydra merges an override with a mapping and
cannot replace a list by one. As in `encore.data.corpora`, lists are sorted by name, a missing folder or stem
is a ``FileNotFoundError`` and any other mistake a ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from encore.data.corpora import (
    SPLITS,
    Item,
    Reference,
    Split,
    check_choice,
    choose,
    existing_folder,
    is_audio,
    parts_of,
    subfolders,
)

Groups = Mapping[str, Sequence[str] | None]
Grouping = Sequence[str] | Groups

MUSIC_SOURCES = ("vocals", "drums", "bass", "other")
MOISESDB_GROUPS: Groups = {
    "vocals": ("vocals",),
    "drums": ("drums", "percussion"),
    "bass": ("bass",),
    "other": None,
}

VALID_SONGS = (
    "Actions - One Minute Smile",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Johnny Lokke - Promises & Lies",
    "Patrick Talbot - A Reason To Leave",
    "Triviul - Angelsaint",
    "Alexander Ross - Goodbye Bolero",
    "Fergessen - Nos Palpitants",
    "Leaf - Summerghost",
    "Skelpolu - Human Mistakes",
    "Young Griffo - Pennies",
    "ANiMAL - Rockshow",
    "James May - On The Line",
    "Meaxic - Take A Step",
    "Traffic Experiment - Sirens",
)
"""The official validation songs of MUSDB18, a part of its training songs."""

_MIXTURE = "mixture"


def musdb18_hq(
    root: str | Path,
    split: Split = "train",
    *,
    sources: Grouping | None = None,
    valid_songs: Sequence[str] | int | None = None,
) -> list[Item]:
    """List MUSDB18-HQ, or a corpus in its layout: ``{train,test}/<Artist - Title>/{mixture,vocals,..}.wav``.

    MUSDB18-HQ has no validation part: the 14 official songs of its training part are held out. A folder
    ``valid`` in ``root`` is used instead where there is one.

    Args:
        root: The folder with ``train`` and ``test``.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        sources: The grouping of stems, such as ``{"vocals": ["vocals"], "accompaniment": None}``; the four of
            `MUSIC_SOURCES` if None.
        valid_songs: Titles of the songs of ``train`` that make up ``"valid"`` and are absent from
            ``"train"``; or their number, evenly spaced over the sorted titles; `VALID_SONGS` if None.

    Returns:
        Items named by artist and title.

    Source: Z. Rafii et al., "MUSDB18-HQ", 2019; the validation songs are those of the package ``musdb``.
    """
    base = existing_folder(root, "the MUSDB18-HQ folder", "data.root")
    check_choice("split", split, SPLITS)
    if split == "test" or (base / "valid").is_dir():
        return song_folders(base / split, sources)
    items = song_folders(base / "train", sources)
    return _hold_out(items, base / "train", split, VALID_SONGS if valid_songs is None else valid_songs)


def song_folders(root: str | Path, sources: Grouping | None = None) -> list[Item]:
    """List a folder per song with a file, or a folder of files, per stem.

    Args:
        root: The folder of the songs' folders; those without audio are ignored.
        sources: The grouping of stems; the four of `MUSIC_SOURCES` if None.

    Returns:
        Items named by the songs' folders.

    Source: types 1 and 4 of data sets in Music-Source-Separation-Training.
    """
    base = existing_folder(root, "a folder of songs", "data.root")
    sources = MUSIC_SOURCES if sources is None else sources
    songs = {folder.name: stems for folder in subfolders(base) if (stems := _stems(folder))}
    if not songs:
        raise ValueError(f"{base} has no songs: expected folders with files such as vocals.wav in it")
    if isinstance(sources, Mapping):
        _check_groups(sources, songs.values(), base)
    items = []
    for name, stems in songs.items():
        mixture = stems.pop(_MIXTURE, None)
        references = (
            _group(stems, sources)
            if isinstance(sources, Mapping)
            else {source: _single(stems, source, base / name) for source in sources}
        )
        if isinstance(mixture, tuple):
            raise ValueError(f"{base / name / _MIXTURE} is a folder: give a file as mixture, or none")
        items.append(Item(name=name, mixture=mixture, references=references))
    return items


def moisesdb(
    root: str | Path,
    split: Split = "train",
    *,
    groups: Groups | None = None,
    valid_songs: Sequence[str] | int = 24,
    test_songs: Sequence[str] | int = 24,
) -> list[Item]:
    """List MoisesDB: ``<song>/<stem>/*.wav``, 240 songs named by an identifier, with eleven kinds of stems.

    It has neither splits nor mixtures: songs are held out for validation and test, and a mixture is the sum
    of the references.

    Args:
        root: The folder with the songs' folders (``moisesdb_v0.1``).
        split: ``"train"``, ``"valid"`` or ``"test"``.
        groups: The stems of every source, None for all others; `MOISESDB_GROUPS`, the four sources of
            MUSDB18, if None. The stems are vocals, bass, drums, percussion, guitar, piano, other_keys,
            bowed_strings, wind, other_plucked and other.
        valid_songs: Names of the songs for validation; or their number, evenly spaced over the sorted names
            of those that are not for test.
        test_songs: Names of the songs for test; or their number, evenly spaced over the sorted names.

    Returns:
        Items named by the songs' identifiers.

    Source: I. Pereira et al., "Moisesdb: A dataset for source separation beyond 4-stems", 2023.
    """
    base = existing_folder(root, "the MoisesDB folder", "data.root")
    check_choice("split", split, SPLITS)
    items = song_folders(base, MOISESDB_GROUPS if groups is None else groups)
    if test_songs:
        tested = _choose_songs(items, base, "test_songs", test_songs)
        if split == "test":
            return tested
        items = [item for item in items if item not in tested]
    elif split == "test":
        raise ValueError(f"test_songs={test_songs!r} holds out no songs: give some, or set data.test=null")
    return _hold_out(items, base, split, valid_songs)


def _stems(song: Path) -> dict[str, Reference]:
    """Return the stems of a song by name, each a file or those of a folder."""
    stems: dict[str, Reference] = {}
    for path in sorted(song.iterdir()):
        folder = path.is_dir() and not path.name.startswith(".")
        files = sorted(path.iterdir()) if folder else [path]
        if not (found := tuple(file for file in files if is_audio(file) and file.is_file())):
            continue
        name = path.name if folder else path.stem
        if name in stems:
            raise ValueError(f"{song} has the stem {name!r} twice: keep one of them, or rename one")
        stems[name] = found if folder else path
    return stems


def _single(stems: Mapping[str, Reference], source: str, song: Path) -> Reference:
    if source not in stems:
        raise FileNotFoundError(
            f"{song} has no {source}; it has {', '.join(stems) or 'none'}: complete it, or give a grouping "
            f"such as sources={{{source}: [{source}]}}, in which absent stems are silent"
        )
    return stems[source]


def _group(stems: Mapping[str, Reference], groups: Groups) -> dict[str, Reference]:
    named = {stem for group in groups.values() if group is not None for stem in group}
    rest = [stem for stem in stems if stem not in named]
    return {
        source: tuple(
            file
            for stem in (rest if group is None else group)
            if stem in stems
            for file in parts_of(stems[stem])
        )
        for source, group in groups.items()
    }


def _check_groups(groups: Groups, songs: Iterable[Mapping[str, Reference]], base: Path) -> None:
    """Raise if groups overlap, leave a source silent in every song, or contain None twice."""
    named = [stem for group in groups.values() if group is not None for stem in group]
    if doubled := sorted({stem for stem in named if named.count(stem) > 1}):
        raise ValueError(f"grouping: the stem {doubled[0]!r} is in several sources: leave it in one of them")
    if len(rests := [source for source, group in groups.items() if group is None]) > 1:
        raise ValueError(f"grouping: {rests} are all the rest: give None for one source only")
    present = {stem for stems in songs for stem in stems if stem != _MIXTURE}
    for source, group in groups.items():
        if not present.intersection(present - set(named) if group is None else group):
            raise ValueError(
                f"grouping: no song of {base} has a stem for {source!r}; the stems are "
                f"{', '.join(sorted(present))}: correct its list, or leave it out"
            )


def _hold_out(items: list[Item], base: Path, split: Split, valid_songs: Sequence[str] | int) -> list[Item]:
    """Return the items for validation, or those left for training."""
    if not valid_songs:
        if split == "valid":
            raise ValueError(
                f"valid_songs={valid_songs!r} holds out no songs: give some, or set data.valid=null"
            )
        return items
    held_out = _choose_songs(items, base, "valid_songs", valid_songs)
    return held_out if split == "valid" else [item for item in items if item not in held_out]


def _choose_songs(items: list[Item], base: Path, argument: str, songs: Sequence[str] | int) -> list[Item]:
    """Return the items of these names, or this many, evenly spaced, but not all."""
    names = choose(argument, songs, [item.name for item in items], base)
    if len(names) == len(items):
        raise ValueError(f"{argument} names all {len(items)} songs of {base}: leave some for training")
    return [item for item in items if item.name in names]
