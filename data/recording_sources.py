"""Recorded voices, noises and music: those that come with Encore, and those in packages of Debian.

Nothing is downloaded: packages are installed (``apt install``), or unpacked below some folder (``dpkg -x``).
Their licences are in their ``copyright`` files; see ``docs/recordings.md``.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import soundfile
import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.common.packages import require
from encore.data.corpora import read_table

Split = Literal["train", "valid", "test"]
Kind = Literal["speech", "noise", "music"]


@dataclass(frozen=True, slots=True)
class Package:
    """Recordings of one kind in a package.

    Attributes:
        name: The package.
        kind: What it holds.
        folder: Below ``usr/share``.
        pattern: Of the files below the folder.
        group: What is never divided between splits: of speech, the voice, in which ``{0}`` stands for the
            first folder of a file's path; of others, a regular expression of the part of a file's name that
            recordings of one origin have in common.
        without: Regular expression of files that are left out.
        splits: Splits of groups, by regular expressions; groups that none matches are ``rest``.
        rest: The split of all other groups; ``"hash"`` deals them by a hash of their names.
    """

    name: str
    kind: Kind
    folder: str
    pattern: str
    group: str = r"^.*?(?=[\d_-]*\.\w+$)"
    without: str = r"^$"
    splits: tuple[tuple[str, Split], ...] = ()
    rest: Split | Literal["hash"] = "train"


G722 = ".g722"
_NO_SPEECH = r"silence/|beep|tone|tt-monkeys|glorious|confbridge-(join|leave)\."
# English and Spanish prompts are spoken by one woman; a language's volunteers may speak in two packages
_LANGUAGES: tuple[tuple[str, Split], ...] = ((r"-(it|da|uk|de)$", "test"), (r"-(lt|ro)$", "valid"))
# voices whose pauses are less than 30 dB below their speech, and the same Serbian recordings once more
_LEFT_OUT = r"^(ar|cs|en|fr|gl|he|hu|sr@\w+)/"
# OpenSFX's sounds cut from one original, as their authors state: other splits than a hash would deal, and
# those whose original is in "test" too
_SAME_ORIGINAL: tuple[str, Split] = (r"[Cc]rash\"|Steam (engine|train)|Sugar mine|Toy factory", "train")
_HALF_IN_TEST = r"^\"Wind\"|pull away with horn|Comedy (bus|truck) start \(1\)"
PACKAGES: tuple[Package, ...] = (
    Package("asterisk-core-sounds-en-g722", "speech", "asterisk/sounds", "en_*/**/*.g722", group="allison",
            without=_NO_SPEECH),
    Package("asterisk-core-sounds-es-g722", "speech", "asterisk/sounds", "es_*/**/*.g722", group="allison",
            without=_NO_SPEECH),
    Package("asterisk-core-sounds-fr-g722", "speech", "asterisk/sounds", "fr_*/**/*.g722", group="june",
            without=_NO_SPEECH),
    Package("asterisk-core-sounds-ru-g722", "speech", "asterisk/sounds", "ru_*/**/*.g722", group="maxim",
            without=_NO_SPEECH),
    Package("asterisk-core-sounds-it-g722", "speech", "asterisk/sounds", "it_*/**/*.g722", group="carlo",
            without=_NO_SPEECH, rest="test"),
    Package("klettres-data", "speech", "klettres", "*/*/*.ogg", group="volunteer-{0}", splits=_LANGUAGES,
            without=_LEFT_OUT),
    Package("ktuberling-data", "speech", "ktuberling/sounds", "*/*.*", group="volunteer-{0}",
            splits=_LANGUAGES, without=_LEFT_OUT + r"|^(es|fi|it|nds|nl|pt|sv)/|txt$"),
    Package("fillets-ng-data-nl", "speech", "games/fillets-ng/sound", "**/nl/*.ogg", group="fillets-nl"),
    Package("sonic-pi-samples", "noise", "sonic-pi/samples", "*.flac", rest="hash",
            without=r"^(bass|bd|sn|elec|glitch)_|choir|robot|burp",
            splits=(("/(drum|tabla|guit|ambi_piano|loop_drone)", "train"),)),
    Package("openttd-opensfx", "noise", "games/openttd/baseset/opensfx", "opensfx.cat", rest="hash",
            group=r"^[^.]+", splits=(_SAME_ORIGINAL,), without=r"Unused|Oooh|Beep|Morse|" + _HALF_IN_TEST),
    Package("extremetuxracer-data", "noise", "games/etr/sounds", "*_slide.wav", rest="hash"),
    Package("unknown-horizons", "noise", "unknown-horizons/content/audio/sounds", "*.ogg", rest="hash",
            without="chapel|click|flippage|refresh|success|error|lumberjack_long"),  # the last begins silent
    Package("lincity-ng-data", "noise", "games/lincity-ng/sounds", "*.wav"),
    Package("searchandrescue-data", "noise", "games/searchandrescue/sounds", "**/*.wav",
            without="engine_start"),  # half of them is silence
    Package("bucklespring-data", "noise", "buckle/wav", "*.wav"),
    Package("asterisk-moh-opsound-g722", "music", "asterisk/moh", "*.g722",
            splits=(("morning_coffee", "test"), ("robot_dity", "valid"))),
    Package("extremetuxracer-data", "music", "games/etr/music", "*.ogg"),
)  # fmt: skip
"""What the large corpora of recordings are made of."""
SAMPLE = Path(__file__).parent / "sample"
"""The recordings that come with Encore: seven voices and some noises, each a few seconds."""
TABLE = "recordings.csv"
"""A table of file, kind, group, split, author and licence, in a folder of recordings."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording.

    Attributes:
        path: The file.
        name: Its name in listings: the package and what tells its recordings apart.
        kind: What it is.
        group: The voice, or the origin; see `Package`.
        split: Where it may be used.
        place: First byte and number of bytes of a recording within an archive; None for a whole file.
    """

    path: Path
    name: str
    kind: Kind
    group: str
    split: Split
    place: tuple[int, int] | None = None


def find_recordings(root: Path = SAMPLE) -> list[Recording]:
    """Find the recordings of a folder with a table `TABLE`, or of all `PACKAGES`.

    Args:
        root: A folder with a table; or the folder that holds ``usr/share``: ``/``, or where the packages were
            unpacked, each in a folder of its own or all in one.

    Raises:
        FileNotFoundError: If the table names a file that is missing.
        ValueError: If a row of the table has another kind or split, or a group two splits; or if a package is
            missing: names all that are, and how to get them.
    """
    if (root / TABLE).is_file():
        return _listed(root / TABLE)
    found: list[Recording] = []
    missing: list[str] = []
    for package in PACKAGES:
        folders = [share / "usr/share" / package.folder for share in (root, root / package.name)]
        files = [(folder, file) for folder in folders for file in sorted(folder.glob(package.pattern))]
        if not files:
            missing.append(package.name)
        for folder, file in files:
            whole = [(file.relative_to(folder).as_posix(), None)]
            for name, place in _entries(file) if file.suffix == ".cat" else whole:
                if not re.search(package.without, name):
                    group, split = _group(package, name)
                    label = f"{package.name}/{name}"
                    found.append(Recording(file, label, package.kind, group, split, place))
    if missing:
        names = " ".join(dict.fromkeys(missing))
        raise ValueError(
            f"{root} has neither {TABLE} nor the packages {names}: apt install them, or apt download them, "
            "unpack each by dpkg -x FILE.deb FOLDER, and give --root FOLDER"
        )
    return found


def read_recording(recording: Recording) -> tuple[Tensor, int]:
    """Decode a recording.

    Returns:
        Its samples ``(time,)``, channels averaged, full scale 1, and its rate in Hz.
    """
    if recording.path.suffix != G722:
        samples, rate = soundfile.read(_sound_file(recording), dtype="float32")
        return torch.from_numpy(samples if samples.ndim == 1 else samples.mean(axis=1)), rate
    av = require("av", needed_by=f"'{recording.path.name}'", extra="recordings")
    with av.open(str(recording.path), format="g722") as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0)
    return torch.from_numpy(samples.astype(np.float32) / 32768), 16_000


def recording_size(recording: Recording) -> tuple[int, int]:
    """Return a recording's number of samples and its rate in Hz, without decoding it."""
    if recording.path.suffix == G722:
        return 2 * recording.path.stat().st_size, 16_000  # a byte codes two samples
    info = soundfile.info(_sound_file(recording))
    return info.frames, info.samplerate


def read_at(recording: Recording, sample_rate: int) -> Tensor:
    """Decode a recording ``(time,)`` at a rate in Hz."""
    samples, rate = read_recording(recording)
    return resample(samples, rate, sample_rate) if len(samples) else samples


def by_group(recordings: Iterable[Recording]) -> dict[str, list[Recording]]:
    """Return recordings by voice or origin, in the order of their names."""
    groups: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda recording: recording.name):
        groups.setdefault(recording.group, []).append(recording)
    return groups


def _sound_file(recording: Recording) -> Path | io.BytesIO:
    """Return what soundfile reads: the file, or the bytes of its place in an archive."""
    if recording.place is None:
        return recording.path
    with recording.path.open("rb") as archive:
        archive.seek(recording.place[0])
        return io.BytesIO(archive.read(recording.place[1]))


def _listed(table: Path) -> list[Recording]:
    """Return the recordings of a table, in its order."""
    found: list[Recording] = []
    splits: dict[str, str] = {}
    for line, row in read_table(table, ("file", "kind", "group", "split")):
        for column, values in (("kind", get_args(Kind)), ("split", get_args(Split))):
            if row[column] not in values:
                raise ValueError(f"{line}: {column}={row[column]}: write one of {', '.join(values)}")
        file = table.parent / row["file"]
        if not file.is_file():
            raise FileNotFoundError(f"{line}: {file} is missing: correct the path")
        kind, split = cast(Kind, row["kind"]), cast(Split, row["split"])
        if (other := splits.setdefault(row["group"], split)) != split:
            raise ValueError(f"{line}: split={split}: group {row['group']} is in '{other}' above: choose one")
        found.append(Recording(file, row["file"], kind, row["group"], split))
    return found


def _group(package: Package, name: str) -> tuple[str, Split]:
    """Return the group of a recording and the group's split."""
    if package.kind == "speech":
        group = package.group.format(*name.split("/"))
    else:
        match = re.search(package.group, name)
        group = f"{package.name}/{match[0] if match else name}"
    for pattern, split in package.splits:
        if re.search(pattern, group):
            return group, split
    if package.rest != "hash":
        return group, package.rest
    dealt: Sequence[Split] = ("test", "test", "valid", "train", "train", "train")
    return group, dealt[int(hashlib.md5(group.encode(), usedforsecurity=False).hexdigest(), 16) % len(dealt)]


def _entries(archive: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield name and place of the WAV files in OpenTTD's archive of sounds."""
    data = archive.read_bytes()

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little") & 0x7FFFFFFF

    # a table of starts and sizes; at each start the length of a name, the name and the file
    for entry in range(0, number(0), 8):
        start, size = number(entry), number(entry + 4)
        file = start + 1 + data[start]
        yield data[start + 1 : file].rstrip(b"\0").decode("utf-8", "replace"), (file, size)
