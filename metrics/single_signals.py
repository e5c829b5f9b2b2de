"""PESQ and STOI of one pair of signals, in NumPy, from any thread.

The processes of `encore.metrics.processes` run this file by itself: without torch they start fast and stay
small.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PESQ_RATES = {"wb": 16000, "nb": 8000}
"""Rate in Hz that each mode of PESQ is computed at here."""

# ITU's code writes past its arrays, and may end the process, from the 51st utterance on; utterances and gaps
# last more than 0.2 s each, so that no signal of 20 s has so many
PESQ_MAXIMUM_SECONDS = 20

_STOI_MINIMUM_SECONDS = 0.05

_numpy_generator = Lock()


def pesq_of_signal(estimate: FloatArray, reference: FloatArray, mode: str) -> float:
    """Score finite ``(time,)`` at the rate of the mode, see `encore.metrics.pesq`.

    NaN without an utterance, and where a piece of the estimate is silent and that of the reference is not.
    """
    # an optional package
    from pesq import BufferTooShortError, NoUtterancesError
    from pesq import pesq as pesq_one

    rate = PESQ_RATES[mode]
    pieces = math.ceil(len(reference) / (PESQ_MAXIMUM_SECONDS * rate))
    scores = []
    for one, other in zip(np.array_split(estimate, pieces), np.array_split(reference, pieces), strict=True):
        if other.any() and not one.any():
            return math.nan
        try:
            score = pesq_one(rate, other, one, mode) if other.any() else math.nan  # type: ignore[no-untyped-call]
            scores.append(float(score))
        except (BufferTooShortError, NoUtterancesError):
            scores.append(math.nan)
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan


def stoi_of_signal(
    estimate: FloatArray, reference: FloatArray, sample_rate: int, extended: bool = False
) -> float:
    """Score finite ``(time,)``, the reference not silent, see `encore.metrics.stoi`.

    NaN with fewer than 30 frames of 25.6 ms that are not silent.
    """
    # a process that computes PESQ only starts in a tenth of the time without SciPy's filters
    from pystoi import utils
    from pystoi.stoi import DYN_RANGE, FS, N_FRAME, N, stoi

    if len(reference) < _STOI_MINIMUM_SECONDS * sample_rate:
        return math.nan
    with np.errstate(all="ignore"):
        if sample_rate != FS:
            estimate, reference = (
                utils.resample_oct(signal, FS, sample_rate)  # type: ignore[no-untyped-call]
                for signal in (estimate, reference)
            )
        # pystoi warns where there are too few frames, and warnings are silenced for all threads or none
        sounding, _ = utils.remove_silent_frames(reference, reference, DYN_RANGE, N_FRAME, N_FRAME // 2)  # type: ignore[no-untyped-call]
        if len(range(0, len(sounding) - N_FRAME, N_FRAME // 2)) < N:
            return math.nan
        with _seeded_numpy(extended):
            return float(stoi(reference, estimate, FS, extended=extended))  # type: ignore[no-untyped-call]


@contextmanager
def _seeded_numpy(needed: bool) -> Iterator[None]:
    """Seed NumPy's generator for a call: noise of 1e-16 that pystoi adds decides in empty bands."""
    if not needed:
        yield
        return
    with _numpy_generator:
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


SCORES: dict[str, Callable[..., float]] = {"pesq": pesq_of_signal, "stoi": stoi_of_signal}
"""Functions that a process can call, by name."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer pickled ``(name, estimate, reference, options)`` with scores or exceptions."""
    while True:
        try:
            name, estimate, reference, options = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: float | Exception = SCORES[name](estimate, reference, **options)
        except Exception as error:  # the calling process raises it
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    # the calling process decides what an interruption means; this one ends with its pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # output of libraries must not mix with the answers
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, channel)
