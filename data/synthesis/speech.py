"""Speech in many voices: espeak-ng's languages, variants and prosody, and a vocal tract of another length.

espeak-ng comes with the package ``espeakng-loader`` (GPL-3.0, hence the extra ``synthesis``) and runs in a
process of its own for each utterance (``espeak_process.py`` says why): same voice, same text, same samples.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from encore.data.synthesis import FloatArray
from encore.data.synthesis.text import draw_sentence

_VOICES = {
    "english": """
        en-us en en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc""",
    "foreign": """
        af cs da de es fi fr id it nb nl pl pt-br ro sv sw""",
    "female": """
        f1 f2 f3 f4 f5 Alicia Andrea Annie anika aunty belinda grandma linda steph steph2""",
    "male": """
        m1 m2 m3 m4 m5 m6 m7 m8 Alex Andy Denis Diogo Gene Henrique Lee Mario Michael Mike adam
        benjamin boris croak david edward2 grandpa gustave klatt6 marcelo max michel mike2 norbert
        quincy rob robert shelby travis victor""",
}
ENGLISH, FOREIGN, FEMALE_VARIANTS, MALE_VARIANTS = (tuple(names.split()) for names in _VOICES.values())
VARIANTS = FEMALE_VARIANTS + MALE_VARIANTS

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 6.0
_ATTEMPTS = 100
_RATE_GRID = 50  # Hz: keeps the ratio of sample rates a small fraction


class SynthesisError(RuntimeError):
    """Speech could not be synthesised; the message is one line and says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """One speaker.

    Attributes:
        base: espeak-ng language, whose letter-to-sound rules make the accent.
        variant: espeak-ng voice variant, which makes the timbre.
        rate: Words per minute as heard.
        pitch: 0 to 100, the variant's own register being 50.
        span: Pitch range, 0 (monotonous) to 100.
        shift: Factor on all frequencies, formants and pitch alike; above 1 a shorter vocal tract.
        tilt: Slope of an equaliser about 1 kHz, dB per octave.
    """

    base: str
    variant: str
    rate: float
    pitch: float
    span: float
    shift: float
    tilt: float


def draw_voice(
    rng: np.random.Generator, variants: tuple[str, ...] = VARIANTS, bases: tuple[str, ...] = ()
) -> Voice:
    """Draw a voice: two times in three an English accent, else another language's.

    Args:
        rng: Source of all choices.
        variants: espeak-ng variants to choose from.
        bases: espeak-ng languages to choose from instead.
    """
    usual = ENGLISH if rng.random() < 2 / 3 else FOREIGN
    return Voice(
        base=str(rng.choice(bases or usual)),
        variant=str(rng.choice(variants)),
        rate=round(float(rng.uniform(140, 210)), 1),
        pitch=round(float(rng.uniform(25, 75)), 1),
        span=round(float(rng.uniform(25, 90)), 1),
        shift=round(float(rng.uniform(0.88, 1.15)), 3),
        tilt=round(float(rng.uniform(-1.5, 1.5)), 2),
    )


def vary_prosody(voice: Voice, rng: np.random.Generator, amount: float = 0.1) -> Voice:
    """Return the same speaker in another mood: rate, pitch and range moved by up to the share ``amount``."""
    rate, pitch, span = 1 + rng.uniform(-amount, amount, 3)
    return replace(
        voice,
        rate=round(voice.rate * rate, 1),
        pitch=round(voice.pitch * pitch, 1),
        span=round(min(voice.span * span, 100.0), 1),
    )


def check_espeak() -> tuple[str, str]:
    """Return the paths of the espeak-ng library and of its data.

    Raises:
        SynthesisError: If ``espeakng-loader`` is not installed.
    """
    try:
        loader = importlib.import_module("espeakng_loader")  # GPL, an optional extra
    except ModuleNotFoundError as error:
        raise SynthesisError(
            "speech synthesis needs espeak-ng; pip install 'encore-separation[synthesis]'"
        ) from error
    return str(loader.get_library_path()), str(loader.get_data_path())


def say(text: str, voice: Voice, sample_rate: int) -> FloatArray:
    """Synthesise a text.

    espeak-ng's 22.05 kHz are taken for ``shift`` times as many and then resampled, which moves every formant;
    the speaking rate asked of espeak-ng makes up for the changed tempo. Nothing lies above some 11 kHz.

    Args:
        text: English text.
        voice: Who says it.
        sample_rate: Of the result, Hz.

    Returns:
        ``(time,)``, silence trimmed from both ends, largest magnitude 1; empty where espeak-ng says nothing.

    Raises:
        SynthesisError: If espeak-ng is missing, refuses the voice, or dies.
    """
    library, data = check_espeak()
    request = {
        "library": library,
        "data": Path(data).name,
        "voice": f"{voice.base}+{voice.variant}",
        "rate": round(voice.rate / voice.shift),
        "pitch": round(voice.pitch),
        "span": round(voice.span),
        "text": text,
    }
    script = Path(__file__).with_name("espeak_process.py")
    # -I and -S leave out site-packages: the start takes milliseconds, and no user setting reaches the process
    answer = subprocess.run(
        [sys.executable, "-I", "-S", str(script)],
        cwd=Path(
            data
        ).parent,  # espeak-ng cannot hold a data path beyond 160 characters, so it gets a short one
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    if answer.returncode != 0:
        reason = answer.stderr.decode(errors="replace").strip().splitlines()
        raise SynthesisError(reason[-1] if reason else f"espeak-ng died with status {answer.returncode}")
    header, samples = answer.stdout.split(b"\n", 1)
    spoken = np.frombuffer(samples, np.int16).astype(np.float64) / 32768
    taken_for = round(int(header) * voice.shift / _RATE_GRID) * _RATE_GRID
    divisor = int(np.gcd(sample_rate, taken_for))
    resampled = resample_poly(spoken, sample_rate // divisor, taken_for // divisor)
    trimmed = trim(_equalise(resampled, sample_rate, voice.tilt), sample_rate)
    return trimmed / max(float(np.abs(trimmed).max(initial=0.0)), 1e-9)


def draw_utterance(
    voice: Voice,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    shortest_seconds: float = SHORTEST_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> tuple[str, FloatArray]:
    """Draw what to say, anew or with a further sentence, until its length fits.

    Args:
        voice: Who says it.
        sample_rate: Hz.
        rng: Source of the sentences.
        shortest_seconds: Least length after trimming.
        longest_seconds: Largest length after trimming.

    Returns:
        The text and ``(time,)``, peak 1.

    Raises:
        SynthesisError: If no text of fitting length was found.
    """
    text = draw_sentence(rng)
    for _ in range(_ATTEMPTS):
        speech = say(text, voice, sample_rate)
        if speech.size < shortest_seconds * sample_rate:
            text = f"{text} {draw_sentence(rng)}"
        elif speech.size > longest_seconds * sample_rate:
            text = draw_sentence(rng)
        else:
            return text, speech
    raise SynthesisError(
        f"no text of {shortest_seconds} to {longest_seconds} s for {voice}; widen the limits"
    )


def trim(
    speech: FloatArray, sample_rate: int, *, floor_db: float = -40.0, margin_seconds: float = 0.05
) -> FloatArray:
    """Cut the ends whose 10 ms frames lie ``floor_db`` below the loudest one, but for a margin.

    Args:
        speech: ``(time,)``.
        sample_rate: Hz.
        floor_db: Threshold relative to the loudest frame, dB, negative.
        margin_seconds: What stays at either end.

    Returns:
        ``(time,)``, a view.
    """
    frame = sample_rate // 100
    count = speech.size // frame
    energy = (speech[: count * frame].reshape(count, frame) ** 2).mean(1)
    loud = np.flatnonzero(energy > energy.max(initial=0.0) * 10 ** (floor_db / 10))
    if loud.size == 0:
        return speech[:0]
    margin = round(margin_seconds * sample_rate)
    return speech[max(int(loud[0]) * frame - margin, 0) : (int(loud[-1]) + 1) * frame + margin]


def _equalise(speech: FloatArray, sample_rate: int, tilt: float) -> FloatArray:
    """Tilt the spectrum by ``tilt`` dB per octave from 100 Hz to 8 kHz, and take out what lies below 40."""
    if speech.size == 0:
        return speech
    frequency = np.fft.rfftfreq(speech.size, 1 / sample_rate)
    octaves = np.log2(np.clip(frequency, 100, 8000) / 1000)
    gain = 10 ** (tilt * octaves / 20) * np.clip((frequency - 20) / 20, 0, 1)
    return np.fft.irfft(np.fft.rfft(speech) * gain, speech.size)
