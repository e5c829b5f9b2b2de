"""Processes that score one pair of signals at a time, for metrics that hold Python's lock.

They are plain programs at the other end of a pipe and not of `multiprocessing`: a script needs no ``if
__name__ == "__main__":``, and a process that may have no children of `multiprocessing`, such as a worker of a
`DataLoader`, can have these. They end with the process that started them, however it ends.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from encore.metrics import single_signals
from encore.metrics.single_signals import SCORES, FloatArray


def score_pairs(
    name: str, pairs: Iterable[tuple[FloatArray, FloatArray]], *, workers: int = 0, **options: Any
) -> list[float]:
    """Return the scores of pairs ``(estimate, reference)`` of ``(time,)``, in their order.

    Args:
        name: A key of `encore.metrics.single_signals.SCORES`.
        pairs: The signals.
        workers: Processes; 0 scores in this one. The values are the same, save that the last of the 53 bits
            of STOI can follow the threads that NumPy's matrix products use: one there, maybe more here.
        **options: Arguments of the function of that name.

    Raises:
        ValueError: If workers is negative.
        RuntimeError: If a process ended before it had answered.
    """
    if workers:
        return score_pool(workers).score(name, pairs, **options)
    return [SCORES[name](estimate, reference, **options) for estimate, reference in pairs]


def score_pool(workers: int) -> ScorePool:
    """Return the pool of that many processes that all threads of this process use."""
    if workers < 1:
        raise ValueError(f"workers={workers} is no number of processes: give 1 or more")
    # a fork cannot use the pool that it inherits
    key = (os.getpid(), workers)
    return _pools.get(key) or _pools.setdefault(key, ScorePool(workers))


@atexit.register
def close_score_pools() -> None:
    """Stop the processes of all pools; the next score starts new ones."""
    for key in [key for key in _pools if key[0] == os.getpid()]:
        _pools.pop(key).close()


class ScorePool:
    """At most ``workers`` processes, started when they are first needed, for any thread."""

    def __init__(self, workers: int) -> None:
        # a thread waits for each process
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="score")
        self._own = threading.local()
        self.processes: list[subprocess.Popen[bytes]] = []

    def score(self, name: str, pairs: Iterable[tuple[FloatArray, FloatArray]], **options: Any) -> list[float]:
        """Score every pair; see `score_pairs`."""
        return list(self._threads.map(lambda pair: self._score((name, *pair, options)), pairs))

    def close(self) -> None:
        """Finish running scores, drop waiting ones, and stop the processes."""
        self._threads.shutdown(cancel_futures=True)
        while self.processes:
            _stop(self.processes.pop())

    def _score(self, request: tuple[str, FloatArray, FloatArray, dict[str, Any]]) -> float:
        """Send a request to the process of this thread, and wait for its answer."""
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _start()
            self.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            answer: float | Exception = pickle.load(process.stdout)
        except (EOFError, OSError) as error:
            self._own.process = None
            self.processes.remove(process)
            raise RuntimeError(
                f"a process that computed {request[0]!r} ended with status {_stop(process)}: if memory was "
                "short, use fewer workers; workers=0 scores in the calling process"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _start() -> subprocess.Popen[bytes]:
    """Start `encore.metrics.single_signals` as a program, with one thread of its own."""
    environment = {
        **os.environ,
        # as many processes as there is room for have one core each
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # the same packages as here, however they were found
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    # -P: the modules beside the file are no top-level modules
    command = [sys.executable, "-P", single_signals.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """End a process, which keeps nothing, and return its exit status."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # bytes that it has not read
            pipe.close()  # type: ignore[union-attr]
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=1)
    process.kill()
    return process.wait()


_pools: dict[tuple[int, int], ScorePool] = {}
