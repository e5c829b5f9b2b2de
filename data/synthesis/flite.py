"""Speech by another synthesiser: the program flite, whose statistical and diphone voices espeak-ng lacks.

A separator can learn the synthesiser instead of speech; a corpus in voices made another way shows whether it
has. The program comes with the package ``flite`` of Debian and others. Its voices are few, so speakers who
share one differ in tempo and fundamental; all of it is 16 kHz. Same program, voice and text: same samples.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from encore.data.synthesis import FloatArray
from encore.data.synthesis.speech import LONGEST_SECONDS, SHORTEST_SECONDS, SynthesisError, trim
from encore.data.synthesis.text import draw_sentence

VOICES = ("awb", "kal16", "rms", "slt")
"""A Scot, an American as diphones, an American man, an American woman."""
OWN_PITCH_ONLY = ("rms",)
"""Voices that leave flite's settings of the fundamental unheard."""
SAMPLE_RATE = 16_000
_RATE_RANGE = (0.85, 1.2)
_PITCH_RANGE = (0.85, 1.15)
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class FliteVoice:
    """One speaker.

    Attributes:
        name: One of ``VOICES``.
        rate: Factor on the voice's own tempo; above 1 is faster.
        pitch: Factor on the voice's own fundamental, formants staying; 1 for ``OWN_PITCH_ONLY``.
    """

    name: str
    rate: float = 1.0
    pitch: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what flite would pass over in silence."""
        if self.name not in VOICES:
            raise ValueError(f"name must be one of {', '.join(VOICES)}, not {self.name!r}")
        if min(self.rate, self.pitch) <= 0:
            raise ValueError(f"rate={self.rate} and pitch={self.pitch} are factors: both must be positive")
        if self.name in OWN_PITCH_ONLY and self.pitch != 1:
            raise ValueError(
                f"pitch must be 1 for the voice {self.name}, which has no other, not {self.pitch}"
            )


def draw_voice(rng: np.random.Generator, names: tuple[str, ...] = VOICES) -> FliteVoice:
    """Draw a voice, its tempo, and its fundamental where it has a choice.

    Args:
        rng: Source of all choices.
        names: Voices to choose from.
    """
    name = str(rng.choice(names))
    rate, pitch = (round(float(rng.uniform(*bounds)), 3) for bounds in (_RATE_RANGE, _PITCH_RANGE))
    return FliteVoice(name=name, rate=rate, pitch=1.0 if name in OWN_PITCH_ONLY else pitch)


def vary_prosody(voice: FliteVoice, rng: np.random.Generator, amount: float = 0.1) -> FliteVoice:
    """Return the same speaker in another mood: tempo and fundamental moved by up to the share ``amount``."""
    rate, pitch = 1 + rng.uniform(-amount, amount, 2)
    if voice.name in OWN_PITCH_ONLY:
        return replace(voice, rate=round(voice.rate * rate, 3))
    return replace(voice, rate=round(voice.rate * rate, 3), pitch=round(voice.pitch * pitch, 3))


def check_flite() -> str:
    """Return the path of the program.

    Raises:
        SynthesisError: If it is not installed, or lacks a voice.
    """
    program = shutil.which("flite")
    if program is None:
        raise SynthesisError(
            "these voices need the program flite; install the package 'flite' (apt install flite)"
        )
    listed = subprocess.run([program, "-lv"], capture_output=True, text=True, check=False).stdout
    # asked for a voice that it does not have, flite takes another one and says nothing
    missing = sorted(set(VOICES) - set(listed.partition(":")[2].split()))
    if missing:
        raise SynthesisError(f"{program} has no voice {', '.join(missing)}; install a flite built with it")
    return program


def say(text: str, voice: FliteVoice) -> FloatArray:
    """Synthesise a text.

    Args:
        text: English text.
        voice: Who says it.

    Returns:
        ``(time,)`` at ``SAMPLE_RATE``, silence trimmed from both ends, largest magnitude 1.

    Raises:
        SynthesisError: If flite is missing or writes no sound.
    """
    program = check_flite()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        settings = {"duration_stretch": 1 / voice.rate, "f0_shift": voice.pitch}
        options = [word for key, value in settings.items() for word in ("--setf", f"{key}={value:.6f}")]
        answer = subprocess.run(
            [program, "-voice", voice.name, *options, "-t", text, "-o", str(path)],
            capture_output=True,
            check=False,
        )
        # flite's status is 0 whatever happens
        if not path.exists():
            reason = answer.stderr.decode(errors="replace").strip().splitlines()
            raise SynthesisError(reason[-1] if reason else f"flite wrote nothing, status {answer.returncode}")
        spoken = np.asarray(soundfile.read(path)[0], np.float64)
    trimmed = trim(_without_rumble(spoken), SAMPLE_RATE)
    return trimmed / max(float(np.abs(trimmed).max(initial=0.0)), 1e-9)


def draw_utterance(
    voice: FliteVoice,
    rng: np.random.Generator,
    *,
    shortest_seconds: float = SHORTEST_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> tuple[str, FloatArray]:
    """Draw what to say, anew or with a further sentence, until its length fits.

    Args:
        voice: Who says it.
        rng: Source of the sentences.
        shortest_seconds: Least length after trimming.
        longest_seconds: Largest length after trimming.

    Returns:
        The text and ``(time,)`` at ``SAMPLE_RATE``, peak 1.

    Raises:
        SynthesisError: If no text of fitting length was found.
    """
    text = draw_sentence(rng)
    for _ in range(_ATTEMPTS):
        speech = say(text, voice)
        if speech.size < shortest_seconds * SAMPLE_RATE:
            text = f"{text} {draw_sentence(rng)}"
        elif speech.size > longest_seconds * SAMPLE_RATE:
            text = draw_sentence(rng)
        else:
            return text, speech
    raise SynthesisError(
        f"no text of {shortest_seconds} to {longest_seconds} s for {voice}; widen the limits"
    )


def _without_rumble(speech: FloatArray) -> FloatArray:
    """Take out what lies below 40 Hz: some recordings had an offset, which their voices speak too."""
    frequency = np.fft.rfftfreq(speech.size, 1 / SAMPLE_RATE)
    return np.fft.irfft(np.fft.rfft(speech) * np.clip((frequency - 20) / 20, 0, 1), speech.size)
