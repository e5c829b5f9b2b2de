"""Speech in many voices, by espeak-ng or flite: draw a voice, vary it, let it say a text.

espeak-ng comes with the package ``espeakng-loader`` (GPL-3.0, hence the extra ``synthesis``) and runs in a
process of its own for each utterance (``espeak_process.py`` gives the reason). A separator can learn the
synthesiser instead of speech; a corpus by another one shows whether it has: the program flite, of the package
``flite`` of Debian and others. With either, same voice and text give the same samples.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from encore.common.packages import require
from encore.synthetic_corpora import FloatArray, Rng, dsp
from encore.synthetic_corpora.text import draw_sentence

_NAMES = """
    en-us en en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc
    | af cs da de es fi fr id it nb nl pl pt-br ro sv sw
    | f1 f2 f3 f4 f5 Alicia Andrea Annie anika aunty belinda grandma linda steph steph2
    | m1 m2 m3 m4 m5 m6 m7 m8 Alex Andy Denis Diogo Gene Henrique Lee Mario Michael Mike adam benjamin
    boris croak david edward2 grandpa gustave klatt6 marcelo max michel mike2 norbert quincy rob robert shelby
    travis victor"""
ENGLISH, FOREIGN, WOMEN, MEN = (tuple(names.split()) for names in _NAMES.split("|"))
VARIANTS = WOMEN + MEN
FLITE = "flite"
FLITE_VOICES = ("awb", "kal16", "rms", "slt")
"""A Scot, an American as diphones, an American man, an American woman."""

_PROSODY = {"rate": (140, 210), "pitch": (25, 75), "span": (25, 90), "shift": (0.88, 1.15)}  # see Voice
_ATTEMPTS = 100
_USUAL_RATE = 175.0  # words per minute
_RATE_GRID = 50  # Hz: keeps the ratio of sample rates a small fraction


class SynthesisError(RuntimeError):
    """Speech could not be synthesised; the message is one line and says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """One speaker.

    Attributes:
        base: espeak-ng language, whose letter-to-sound rules make the accent, or `FLITE`.
        timbre: espeak-ng voice variant, or voice of flite.
        rate: Words per minute.
        pitch: 0 to 100, the timbre's own register being 50.
        span: Pitch range, 0 (monotonous) to 100; flite ignores it.
        shift: Factor on all frequencies, formants and pitch alike; above 1 a shorter vocal tract.
    """

    base: str
    timbre: str
    rate: float = _USUAL_RATE
    pitch: float = 50.0
    span: float = 50.0
    shift: float = 1.0

    def vary(self, rng: Rng) -> Voice:
        """Return the same speaker with rate, pitch and range changed by up to 10 %."""
        changed = np.array([self.rate, self.pitch, self.span]) * (1 + rng.uniform(-0.1, 0.1, 3))
        rate, pitch, span = np.round(np.minimum(changed, [np.inf, 100, 100]), 1).tolist()
        return replace(self, rate=rate, pitch=pitch, span=span)

    def say(self, text: str, sample_rate: int) -> FloatArray:
        """Synthesise an English text: ``(time,)``, trimmed, peak 1; empty if the synthesiser is silent.

        The synthesiser's sample rate is taken for ``shift`` times as many Hz, which moves every formant, and
        its tempo corrected. espeak-ng's speech ends at some 11 kHz, flite's at 8 kHz.
        """
        spoken, rate = (_flite if self.base == FLITE else _espeak)(self, text)
        rate = round(rate * self.shift / _RATE_GRID) * _RATE_GRID
        divisor = int(np.gcd(sample_rate, rate))
        resampled = resample_poly(spoken, sample_rate // divisor, rate // divisor)
        trimmed = trim(dsp.equalize(resampled, sample_rate), sample_rate)
        return trimmed / max(float(np.abs(trimmed).max(initial=0.0)), 1e-9)


def draw_voice(rng: Rng, timbres: Sequence[str] = VARIANTS, bases: Sequence[str] = ()) -> Voice:
    """Draw a voice of the given timbres and bases, by default two times in three with an English accent."""
    usual = ENGLISH if rng.random() < 2 / 3 else FOREIGN
    prosody = {name: round(float(rng.uniform(*bounds)), 3) for name, bounds in _PROSODY.items()}
    return Voice(base=str(rng.choice(bases or usual)), timbre=str(rng.choice(timbres)), **prosody)


def assign_voices(rng: Rng, held_out: Sequence[str], others: Sequence[str]) -> dict[str, Voice]:
    """Draw espeak-ng's voices of speakers, a woman and a man in turn.

    A held-out speaker has an English accent and a variant of its own, a numbered one (they are the plainest)
    while there are any; the others divide the remaining variants among them.
    """
    pools = [sorted(rng.permutation(names), key=lambda name: name[1:].isdigit()) for names in (WOMEN, MEN)]
    voices = {
        speaker: draw_voice(rng, (pools[index % 2].pop(),), ENGLISH) for index, speaker in enumerate(held_out)
    }
    for index, speaker in enumerate(others):
        pool = pools[index % 2]
        voices[speaker] = draw_voice(rng, (pool[index // 2 % len(pool)],))
    return voices


def draw_utterance(
    voice: Voice, sample_rate: int, rng: Rng, seconds: tuple[float, float] = (2.0, 6.0)
) -> tuple[str, FloatArray]:
    """Draw a text, anew or with a further sentence, until its speech fits; return both."""
    text = draw_sentence(rng)
    for _ in range(_ATTEMPTS):
        speech = voice.say(text, sample_rate)
        if speech.size < seconds[0] * sample_rate:
            text = f"{text} {draw_sentence(rng)}"
        elif speech.size > seconds[1] * sample_rate:
            text = draw_sentence(rng)
        else:
            return text, speech
    raise SynthesisError(f"no text of {seconds[0]} to {seconds[1]} s for {voice}; widen the limits")


def trim(speech: FloatArray, sample_rate: int) -> FloatArray:
    """Remove 10 ms frames at either end that are 40 dB below the loudest one, but for 50 ms."""
    frame = sample_rate // 100
    count = speech.size // frame
    energy = (speech[: count * frame].reshape(count, frame) ** 2).mean(1)
    loud = np.flatnonzero(energy > 1e-4 * energy.max(initial=0.0))
    if loud.size == 0:
        return speech[:0]
    return speech[max(int(loud[0]) - 5, 0) * frame : (int(loud[-1]) + 6) * frame]


def check_espeak() -> tuple[Path, Path]:
    """Return the paths of the espeak-ng library and of its data, which ``espeakng-loader`` has."""
    loader = require("espeakng_loader", needed_by="speech synthesis", extra="synthesis")
    return Path(loader.get_library_path()), Path(loader.get_data_path())


def check_flite() -> str:
    """Return the path of the program flite, or raise a `SynthesisError` if it or a voice is missing."""
    program = shutil.which("flite")
    if program is None:
        raise SynthesisError("synthesiser flite needs the program flite; install the package 'flite'")
    listed = subprocess.run([program, "-lv"], capture_output=True, text=True, check=False).stdout
    # for a voice that it does not have, flite silently takes another one
    if missing := sorted(set(FLITE_VOICES) - set(listed.partition(":")[2].split())):
        raise SynthesisError(f"{program} has no voice {', '.join(missing)}; install a flite built with it")
    return program


def _espeak(voice: Voice, text: str) -> tuple[FloatArray, int]:
    library, data = check_espeak()
    prosody = [round(number) for number in (voice.rate / voice.shift, voice.pitch, voice.span)]
    request = [str(library), data.name, f"{voice.base}+{voice.timbre}", text, *prosody]
    # -I and -S leave out site-packages: the start takes milliseconds, and no user setting interferes;
    # espeak-ng cannot hold a data path beyond 160 characters, so it gets a short one from within the folder
    script = [sys.executable, "-I", "-S", str(Path(__file__).with_name("espeak_process.py"))]
    answer = subprocess.run(script, cwd=data.parent, input=json.dumps(request).encode(), capture_output=True)
    if answer.returncode != 0:
        raise SynthesisError(_last_line(answer))
    header, samples = answer.stdout.split(b"\n", 1)
    return np.frombuffer(samples, np.int16).astype(np.float64) / 32768, int(header)


def _flite(voice: Voice, text: str) -> tuple[FloatArray, int]:
    stretch, pitch = _USUAL_RATE * voice.shift / voice.rate, 0.7 + 0.006 * voice.pitch
    options = ["--setf", f"duration_stretch={stretch:.6f}", "--setf", f"f0_shift={pitch:.6f}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [check_flite(), "-voice", voice.timbre, *options, "-t", text, "-o", str(path)]
        answer = subprocess.run(command, capture_output=True)
        # flite's status is always 0
        if not path.exists():
            raise SynthesisError(_last_line(answer))
        spoken, rate = soundfile.read(path)
    return np.asarray(spoken, np.float64), rate


def _last_line(answer: subprocess.CompletedProcess[bytes]) -> str:
    """Return what a program wrote last on standard error, or its status if nothing."""
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{answer.args[0]} wrote nothing, status {answer.returncode}"
