"""Corpora of songs and their stems.

A *song* is a folder. Every audio file in it is a stem under the file's name, and so is every folder with
audio files, whose sum it is; ``mixture`` is the mixed recording, without which the mixture is the sum of the
references. A *grouping* says which stems a source is made of:

- a list of names: each source is the one stem of that name, and a song that lacks it is refused;
- a mapping of sources to stems: each source is the sum of those stems that a song has, silence if it has
  none. One source may have None in place of a list, for all stems that no other source has.

Where a grouping may be None, configs have ``null``, which an override can replace: to a mapping Hydra would
add keys, and in place of a list it puts none.

As in `encore.data.corpora`, lists are sorted by name and a mistake is one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from encore.data.audio import AUDIO_SUFFIXES
from encore.data.corpora import (
    Item,
    Reference,
    Split,
    check_choice,
    existing_folder,
    parts_of,
    spread,
)

Grouping = Sequence[str] | Mapping[str, Sequence[str] | None]

MUSIC_SOURCES = ("vocals", "drums", "bass", "other")
MOISESDB_GROUPS: Mapping[str, Sequence[str] | None] = {
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
_SHOWN = 3  # names in a message


def musdb18_hq(
    root: str | Path,
    split: Split = "train",
    *,
    sources: Grouping | None = None,
    valid_songs: Sequence[str] | int | None = None,
    rebuild_mixture: bool = False,
) -> list[Item]:
    """MUSDB18-HQ, and any corpus in its layout: ``{train,test}/<Artist - Title>/{mixture,vocals,..}.wav``.

    MUSDB18-HQ has no validation part: the 14 official songs of its training part are kept for it. A folder
    ``valid`` in ``root``, where there is one, is used as it is.

    Args:
        root: The folder with ``train`` and ``test``.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        sources: The grouping of stems; the four of `MUSIC_SOURCES` if None. Another is
            ``{"vocals": ["vocals"], "accompaniment": None}``.
        valid_songs: Titles of the songs of ``train`` that make up ``"valid"`` and are absent from
            ``"train"``; or how many, evenly spread over the sorted titles; `VALID_SONGS` if None.
        rebuild_mixture: Whether the mixture is the sum of the references even if it is recorded, which it
            is only up to rounding.

    Returns:
        Items named by artist and title.

    Raises:
        FileNotFoundError: If a folder or a stem is missing.
        ValueError: If ``split`` is unknown, songs for validation are not there, or stems do not fit.

    Source: Z. Rafii et al., "MUSDB18-HQ", 2019; the validation songs are those of the package ``musdb``.
    """
    base = existing_folder(root, "the MUSDB18-HQ folder", "data.root")
    check_choice("split", split, ("train", "valid", "test"))
    if split == "test" or (base / "valid").is_dir():
        return song_folders(base / split, sources, rebuild_mixture=rebuild_mixture)
    items = song_folders(base / "train", sources, rebuild_mixture=rebuild_mixture)
    return _split_off(items, base / "train", split, VALID_SONGS if valid_songs is None else valid_songs)


def song_folders(
    root: str | Path, sources: Grouping | None = None, *, rebuild_mixture: bool = False
) -> list[Item]:
    """A folder per song with a file, or a folder of files, per stem.

    Args:
        root: The folder of the songs' folders; those without audio are left out.
        sources: The grouping of stems; the four of `MUSIC_SOURCES` if None.
        rebuild_mixture: Whether the mixture is the sum of the references even if it is recorded.

    Returns:
        Items named by the songs' folders.

    Raises:
        FileNotFoundError: If the folder, or a stem that a list of names wants, is missing.
        ValueError: If there are no songs, two files are one stem, or the grouping does not fit.

    Source: types 1 and 4 of data sets in Music-Source-Separation-Training.
    """
    base = existing_folder(root, "a folder of songs", "data.root")
    sources = MUSIC_SOURCES if sources is None else sources
    songs = {
        folder.name: stems
        for folder in sorted(base.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and (stems := _stems(folder))
    }
    if not songs:
        raise ValueError(f"{base} has no songs: expected folders with files such as vocals.wav in it")
    if isinstance(sources, Mapping):
        _check_groups(sources, songs.values(), base)
    items = []
    for name, stems in songs.items():
        mixture = stems.pop(_MIXTURE, None)
        references = (
            _grouped(stems, sources)
            if isinstance(sources, Mapping)
            else {source: _single(stems, source, base / name) for source in sources}
        )
        if isinstance(mixture, tuple):
            raise ValueError(f"{base / name / _MIXTURE} is a folder: a mixture is one file, or left out")
        items.append(Item(name=name, mixture=None if rebuild_mixture else mixture, references=references))
    return items


def moisesdb(
    root: str | Path,
    split: Split = "train",
    *,
    groups: Mapping[str, Sequence[str] | None] | None = None,
    valid_songs: Sequence[str] | int = 24,
    test_songs: Sequence[str] | int = 24,
) -> list[Item]:
    """MoisesDB: ``<song>/<stem>/*.wav``, 240 songs named by an identifier, with eleven kinds of stems.

    It has neither parts nor mixtures: songs are held out for validation and test, and a mixture is the sum
    of the references.

    Args:
        root: The folder with the songs' folders (``moisesdb_v0.1``).
        split: ``"train"``, ``"valid"`` or ``"test"``.
        groups: Which stems a source is made of, or None for all that are left; `MOISESDB_GROUPS`, the
            four sources of MUSDB18, if None. The stems are vocals, bass, drums, percussion, guitar, piano,
            other_keys, bowed_strings, wind, other_plucked and other.
        valid_songs: Names of the songs for validation; or how many, evenly spread over the sorted names of
            those that are not for test.
        test_songs: Names of the songs for test; or how many, evenly spread over the sorted names.

    Returns:
        Items named by the songs' identifiers.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If ``split`` is unknown, held-out songs are not there, or the groups do not fit.

    Source: I. Pereira et al., "Moisesdb: A dataset for source separation beyond 4-stems", 2023.
    """
    base = existing_folder(root, "the MoisesDB folder", "data.root")
    check_choice("split", split, ("train", "valid", "test"))
    items = song_folders(base, MOISESDB_GROUPS if groups is None else groups)
    if test_songs:
        tested = _chosen(items, base, "test_songs", test_songs)
        if split == "test":
            return tested
        items = [item for item in items if item not in tested]
    elif split == "test":
        raise ValueError(f"test_songs={test_songs!r} holds out no songs: give some, or set data.test=null")
    return _split_off(items, base, split, valid_songs)


def _stems(song: Path) -> dict[str, Reference]:
    """Stem names of a song to a file, or to those of a folder."""
    stems: dict[str, Reference] = {}
    for place in sorted(song.iterdir()):
        if place.name.startswith("."):
            continue
        found: Reference = place
        if place.is_dir():
            found = tuple(file for file in sorted(place.iterdir()) if _is_audio(file))
        elif not _is_audio(place):
            continue
        if not found:
            continue
        name = place.name if place.is_dir() else place.stem
        if name in stems:
            raise ValueError(f"{song} has the stem {name!r} twice: keep one of them, or rename one")
        stems[name] = found
    return stems


def _is_audio(file: Path) -> bool:
    return file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".") and file.is_file()


def _single(stems: Mapping[str, Reference], source: str, song: Path) -> Reference:
    if source not in stems:
        raise FileNotFoundError(
            f"{song} has no {source}; it has {', '.join(stems) or 'none'}: complete it, or give a grouping "
            f"such as sources={{{source}: [{source}]}}, which takes what is absent for silent"
        )
    return stems[source]


def _grouped(
    stems: Mapping[str, Reference], groups: Mapping[str, Sequence[str] | None]
) -> dict[str, Reference]:
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


def _check_groups(
    groups: Mapping[str, Sequence[str] | None], songs: Iterable[Mapping[str, Reference]], base: Path
) -> None:
    """Refuse groups of stems that overlap, leave a source silent in every song, or name the rest twice."""
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


def _split_off(items: list[Item], base: Path, split: Split, valid_songs: Sequence[str] | int) -> list[Item]:
    """The items for validation, or those that are left for training."""
    if not valid_songs:
        if split == "valid":
            raise ValueError(
                f"valid_songs={valid_songs!r} holds out no songs: give some, or set data.valid=null"
            )
        return items
    held_out = _chosen(items, base, "valid_songs", valid_songs)
    return held_out if split == "valid" else [item for item in items if item not in held_out]


def _chosen(items: list[Item], base: Path, argument: str, songs: Sequence[str] | int) -> list[Item]:
    """The items that are named, or so many evenly spread; not all of them."""
    if isinstance(songs, int):
        if not 0 < songs < len(items):
            raise ValueError(
                f"{argument}={songs}, but {base} has {len(items)} songs to choose from: hold out some of "
                "them, not all"
            )
        return [items[place] for place in spread(len(items), songs)]
    if absent := sorted(set(songs) - {item.name for item in items}):
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        raise ValueError(
            f"{argument}: {len(absent)} of {len(songs)} songs are not in {base} "
            f"({'; '.join(absent[:_SHOWN])}{more}): name songs that are there, or hold out as many as you "
            f"like with data.train.{argument}=4"
        )
    if len(chosen := [item for item in items if item.name in songs]) == len(items):
        raise ValueError(f"{argument} names all {len(items)} songs of {base}: leave some for training")
    return chosen
