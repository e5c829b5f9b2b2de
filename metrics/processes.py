"""Processes that score one pair of signals at a time, for measures that hold Python's lock.

They are plain programs at the other end of a pipe and not of `multiprocessing`: nothing of the caller is
forked or imported anew, so a script needs no ``if __name__ == "__main__":``, a process that may have no
children of `multiprocessing` (a loader's worker, say) can have these, and without torch they start fast and
stay small. They end with the process that started them, however it ends.
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
    """Score pairs ``(estimate, reference)`` of ``(time,)`` with a measure of single signals.

    Args:
        name: A key of `encore.metrics.single_signals.SCORES`.
        pairs: The signals.
        workers: Processes; 0 scores in this one. The values are the same, save that the last of the 53 bits
            of STOI can follow the threads that NumPy's matrix products use: one there, maybe more here.
        **options: The measure's own arguments.

    Returns:
        One score for each pair, in their order.

    Raises:
        ValueError: If workers is negative.
        RuntimeError: If a process ended before it had answered.
    """
    if workers:
        return score_pool(workers).score(name, pairs, **options)
    return [SCORES[name](estimate, reference, **options) for estimate, reference in pairs]


def score_pool(workers: int) -> ScorePool:
    """Return this process's pool of that many processes, which all its threads share.

    Raises:
        ValueError: If workers is not positive.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} is no number of processes: give 1 or more")
    # what a fork inherits is no pool of its own
    key = (os.getpid(), workers)
    return _pools.get(key) or _pools.setdefault(key, ScorePool(workers))


@atexit.register
def close_score_pools() -> None:
    """Stop the processes of all pools of this process; the next score starts new ones."""
    for key in [key for key in _pools if key[0] == os.getpid()]:
        _pools.pop(key).close()


def check_workers(workers: int) -> int:
    """Return a number of processes, or 0 for none.

    Raises:
        ValueError: If it is negative.
    """
    if workers < 0:
        raise ValueError(f"workers={workers} is negative: give 0 to score in this process")
    return workers


class ScorePool:
    """Processes that start when they are first needed; any thread may ask.

    Args:
        workers: At most this many.

    Attributes:
        processes: Those that run.
    """

    def __init__(self, workers: int) -> None:
        # a thread waits for each process
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="score")
        self._own = threading.local()
        self.processes: list[Process] = []

    def score(self, name: str, pairs: Iterable[tuple[FloatArray, FloatArray]], **options: Any) -> list[float]:
        """Score every pair; see `score_pairs`."""
        return list(self._threads.map(lambda pair: self._ask(name, pair, options), pairs))

    def close(self) -> None:
        """Finish what is being scored, drop what waits, and stop the processes."""
        self._threads.shutdown(cancel_futures=True)
        while self.processes:
            self.processes.pop().stop()

    def _ask(self, name: str, pair: tuple[FloatArray, FloatArray], options: dict[str, Any]) -> float:
        """Let the process of this thread score a pair."""
        process: Process | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = Process()
            self.processes.append(process)
        try:
            answer = process.ask((name, *pair, options))
        except (EOFError, OSError) as error:
            self._own.process = None
            self.processes.remove(process)
            raise RuntimeError(
                f"a process that computed {name!r} ended with status {process.stop()}: if memory was short,"
                " use fewer workers; workers=0 scores in the calling process"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


class Process:
    """A running `encore.metrics.single_signals`, with one thread of its own.

    Attributes:
        pid: Its number in the system.
    """

    def __init__(self) -> None:
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
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.pid = self._popen.pid

    def ask(self, request: tuple[str, FloatArray, FloatArray, dict[str, Any]]) -> float | Exception:
        """Send a request and wait for its answer."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        pickle.dump(request, self._popen.stdin)
        self._popen.stdin.flush()
        answer: float | Exception = pickle.load(self._popen.stdout)
        return answer

    def stop(self) -> int:
        """End the process, which keeps nothing, and return its exit status."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        with suppress(OSError):  # bytes that it did not read any more
            self._popen.stdin.close()
        self._popen.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout=1)
        self._popen.kill()
        return self._popen.wait()


_pools: dict[tuple[int, int], ScorePool] = {}
