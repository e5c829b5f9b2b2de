"""One utterance of espeak-ng in a process of its own; run by ``speech.py``, standard library only.

espeak-ng keeps state from one utterance to the next (its flutter, its echo buffer, the C library's ``rand``),
so that in one process the samples depend on all earlier utterances. A fresh process always starts alike.

Reads the arguments of `synthesise` as a JSON list from standard input; writes the sample rate as a line and
then 16-bit native-endian PCM to standard output.
"""

from __future__ import annotations

import ctypes
import json
import sys
import zlib

SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
HALF_VOLUME = 50  # at 100 many variants clip inside espeak-ng
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def synthesise(
    library: str, data: str, voice: str, text: str, rate: int, pitch: int, span: int
) -> tuple[int, bytes]:
    """Return the sample rate and the samples of a text; the path ``data`` is below 160 characters."""
    espeak = ctypes.CDLL(library)
    sample_rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), DONT_EXIT)
    if sample_rate <= 0:
        raise RuntimeError("espeak-ng cannot read its data folder; reinstall espeakng-loader")
    # otherwise the clock seeds the breath noise; 31 bits, because a C long has no more everywhere
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(zlib.crc32(text.encode()) >> 1))
    pieces: list[bytes] = []

    def receive(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    callback = CALLBACK(receive)  # the name keeps it alive
    espeak.espeak_SetSynthCallback(callback)
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {voice!r}")
    for parameter, value in ((RATE, rate), (VOLUME, HALF_VOLUME), (PITCH, pitch), (RANGE, span)):
        espeak.espeak_SetParameter(parameter, value, 0)
    size = ctypes.c_size_t(len(text.encode()) + 1)
    if espeak.espeak_Synth(text.encode(), size, 0, 0, 0, UTF8, None, None) != 0:
        raise RuntimeError(f"espeak-ng could not synthesise {text!r}")
    espeak.espeak_Synchronize()
    return sample_rate, b"".join(pieces)


if __name__ == "__main__":
    try:
        header, audio = synthesise(*json.load(sys.stdin))
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(f"{header}\n".encode() + audio)
