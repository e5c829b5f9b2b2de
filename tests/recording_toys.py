"""Small trees and folders of recordings for the tests of corpora of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from encore.data.recording_sources import (
    TABLE,
)

RATE = 16_000
SPLITS = ("train", "valid", "test")
UNUSED = Path("unused")


CAT = (
    '"Gale". Original "a.wav" by "one"',
    '"Steam engine going in tunnel". Original "s.wav"',
    '"Steam train station departure". Original "s.wav"',
    '"Wind". Original "w.wav" by "two"',
)


FILES = {  # below usr/share
    "asterisk-core-sounds-en-g722": "asterisk/sounds/en_US_f_A/: 1.g722 d/2.g722 silence/1.g722 beep.g722",
    "asterisk-core-sounds-es-g722": "asterisk/sounds/es_MX_f_A/: 1.g722",
    "asterisk-core-sounds-fr-g722": "asterisk/sounds/fr_CA_f_J/: 1.g722",
    "asterisk-core-sounds-ru-g722": "asterisk/sounds/ru_RU_f_I/: 1.g722",
    "asterisk-core-sounds-it-g722": "asterisk/sounds/it_IT_m_C/: 1.g722",
    "klettres-data": "klettres/: it/alpha/a.ogg lt/alpha/a.ogg ru/alpha/a.ogg en/alpha/a.ogg",
    "ktuberling-data": "ktuberling/sounds/: uk/a.ogg lt/a.wav sr/a.ogg sr@latin/a.ogg fi/a.ogg uk/x.txt",
    "fillets-ng-data-nl": "games/fillets-ng/sound/: cave/nl/a.ogg cave/cs/a.ogg",
    "sonic-pi-samples": "sonic-pi/samples/: loop_mehackit1.flac loop_mehackit2.flac perc_bell.flac "
    "perc_bell2.flac ambi_choir.flac tabla_ke1.flac",
    "openttd-opensfx": "games/openttd/baseset/opensfx/: opensfx.cat",
    "extremetuxracer-data": "games/etr/: sounds/mud_slide.wav music/start1-jt.ogg",
    "unknown-horizons": "unknown-horizons/content/audio/sounds/: smith.ogg chapel.ogg",
    "lincity-ng-data": "games/lincity-ng/sounds/: Farm1.wav Farm2.wav",
    "searchandrescue-data": "games/searchandrescue/sounds/: hh65/crash.wav",
    "bucklespring-data": "buckle/wav/: 01-0.wav",
    "asterisk-moh-opsound-g722": "asterisk/moh/: reno-morning_coffee.g722 x-robot_dity.g722 reno-system.g722",
}


def sound(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".cat":
        path.write_bytes(archive(path.with_suffix(".wav")))
    elif path.suffix in (".g722", ".txt"):
        path.write_bytes(np.random.default_rng(seed).bytes(RATE))
    else:
        soundfile.write(path, sound(2, 44_100, seed), 44_100)


def archive(scratch: Path) -> bytes:
    """OpenTTD's archive: starts, the first with the highest bit set, and sizes; then names and WAV files."""
    table, body = b"", b""
    for number, name in enumerate(CAT):
        soundfile.write(scratch, sound(2 + number, 44_100, number), 44_100)
        title, wav = name.encode() + b"\0", scratch.read_bytes()
        start = 8 * len(CAT) + len(body)
        first = 0 if number else 1 << 31
        table += (start | first).to_bytes(4, "little") + len(wav).to_bytes(4, "little")
        body += bytes([len(title)]) + title + wav
    scratch.unlink()
    return table + body


def own_folder(root: Path, *rows: str) -> Path:
    """A user's folder of recordings, with a WAV file of 2 s for each row of the table that has none."""
    for seed, row in enumerate(rows):
        if not (file := root / row.split(",")[0]).exists():
            write(file, seed)
    (root / TABLE).write_text("\n".join(["file,kind,group,split", *rows]))
    return root


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


def package_tree(root: Path) -> Path:
    """Write all packages, each unpacked in a folder of its own, with a few short recordings."""
    for number, (package, listed) in enumerate(FILES.items()):
        folder, names = listed.split(": ")
        for place, name in enumerate(names.split()):
            write(root / package / "usr/share" / folder / name, 100 * number + place)
    return root


def lag(signal: np.ndarray, reference: np.ndarray) -> int:
    """The shift of the reference at which it resembles the signal most, by phases, which no tone rules."""
    size = 2 * len(signal)
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(reference, size).conj()
    best = int(np.fft.irfft(spectrum / np.maximum(np.abs(spectrum), 1e-9), size).argmax())
    return best if best < size // 2 else best - size


def power_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10((signal.astype(float) ** 2).mean()))
