"""One utterance of espeak-ng in a process of its own; run by ``speech.py``, standard library only.

espeak-ng keeps state from one utterance to the next (its flutter, its echo buffer, the C library's ``rand``),
so that in one process the samples depend on all that was said before. A fresh process always starts alike.

Reads one JSON object from standard input (the arguments of ``synthesise`` by name); writes the sample rate as
a line and then 16-bit PCM to standard output.
"""

from __future__ import annotations

import ctypes
import json
import sys
import zlib

AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
HALF_VOLUME = 50  # at 100 many variants clip inside espeak-ng

SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def synthesise(
    *, library: str, data: str, voice: str, rate: int, pitch: int, span: int, text: str
) -> tuple[int, bytes]:
    """Let espeak-ng say one text.

    Args:
        library: Path of the espeak-ng shared library.
        data: Path of its ``espeak-ng-data`` folder, below 160 characters.
        voice: ``language+variant``.
        rate: Words per minute.
        pitch: 0 to 100.
        span: Pitch range, 0 to 100.
        text: What to say.

    Returns:
        Sample rate in Hz and the samples, 16-bit native-endian PCM, one channel.

    Raises:
        RuntimeError: If espeak-ng refuses the data folder, the voice or the text.
    """
    espeak = ctypes.CDLL(library)
    sample_rate = espeak.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT)
    if sample_rate <= 0:
        raise RuntimeError("espeak-ng cannot read its data folder; reinstall espeakng-loader")
    # otherwise the clock seeds the breath noise; 31 bits, because a C long has no more everywhere
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(zlib.crc32(text.encode()) >> 1))
    pieces: list[bytes] = []

    def receive(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    callback = SYNTH_CALLBACK(receive)
    espeak.espeak_SetSynthCallback(callback)
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {voice!r}")
    for parameter, value in ((RATE, rate), (VOLUME, HALF_VOLUME), (PITCH, pitch), (RANGE, span)):
        espeak.espeak_SetParameter(parameter, value, 0)
    encoded = text.encode()
    if espeak.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, CHARS_UTF8, None, None) != 0:
        raise RuntimeError(f"espeak-ng could not say {text!r}")
    espeak.espeak_Synchronize()
    return sample_rate, b"".join(pieces)


def main() -> int:
    """Answer the request on standard input; exit status 1, with one line, where espeak-ng refuses."""
    request = json.load(sys.stdin)
    try:
        rate, samples = synthesise(**request)
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(f"{rate}\n".encode() + samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
