"""Batch sizes and threads: how the candidates of a round reach the separator.

Nothing here changes a result beyond rounding: a separator works item by item, so that its calls can be cut
and run side by side in any way. How they are is a matter of time and memory only.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.inference.wrappers import Wrapper, separate_each
from encore.models.types import Separator

Part = TypeVar("Part")
Result = TypeVar("Result")

_FIRST_SIZE = 4
_TRIALS = 2
_WORTHWHILE = 0.97
_FREE_PART = 0.8

_FORWARD_MODE = Lock()


class BatchSize:
    """The fastest number of inputs in a separator call, found by timing the calls that are made anyway.

    Not a call is made for it. From four inputs or from one, whichever is faster, sizes are doubled for as
    long as that saves 3 % of the time per input; each is tried twice. On a GPU a size is tried only if twice
    the memory of its half is free, and a call that runs out of memory is repeated in halves and lowers the
    limit. What is learnt holds for audio of one length (rounded to a power of two) and one number of workers;
    use one object for one separator on one device, for as many refinements as you like, from any thread.

    Args:
        limit: Never more than this many in a call.
        samples: Nor more than this many samples, all channels together, unless a single input has more.
    """

    def __init__(self, limit: int = 256, samples: int | None = None) -> None:
        if limit < 1 or (samples is not None and samples < 1):
            raise ValueError(f"limit={limit} and samples={samples}: at least one input goes into a call")
        self.limit, self.samples = limit, samples
        self._limits: dict[int, int] = {}
        self._seconds: dict[tuple[int, int, int], list[float]] = {}
        self._lock = Lock()

    def choose(self, example: Tensor, workers: int = 1) -> tuple[int, int]:
        """Return how many calls to make at a time, ``workers`` or one on all cores, and the inputs of each.

        Args:
            example: One input, ``(c, t)``.
            workers: Most calls at a time.
        """
        with self._lock:
            limit = self._limit(example)
            # one input alone is tried too: kernels for it can be others, and twice as fast
            starts = (min(_FIRST_SIZE, limit), 1)
            by_workers = {count: self._costs(example, count, limit) for count in (workers, 1)}
            for count, costs in by_workers.items():
                for size in starts:
                    if size not in costs:
                        return count, size
            count = max(by_workers, key=lambda count: count / min(by_workers[count].values()))
            costs = by_workers[count]
            best = min(starts, key=lambda size: costs[size])
            while (following := 2 * best) <= limit:
                if following not in costs:
                    return count, following
                if costs[following] > _WORTHWHILE * costs[best]:
                    break
                best = following
            return count, best

    def record(
        self, size: int, count: int, example: Tensor, seconds: float, *, workers: int = 1, peak_bytes: int = 0
    ) -> None:
        """Note what a call took; one with half as many inputs as `choose` said, or fewer, says nothing.

        Args:
            size: What `choose` had said.
            count: How many inputs were separated.
            example: One of them, ``(c, t)``.
            seconds: How long that took.
            workers: How many calls were made at a time.
            peak_bytes: GPU memory that it needed beyond what was taken before.
        """
        length = _length(example)
        if 2 * count <= size:
            return
        with self._lock:
            self._seconds.setdefault((length, workers, size), []).append(seconds / count)
            if example.is_cuda and 2 * peak_bytes > _FREE_PART * torch.cuda.mem_get_info(example.device)[0]:
                self._limits[length] = min(size, self._limits.get(length, self.limit))

    def _costs(self, example: Tensor, workers: int, limit: int) -> dict[int, float]:
        """Return the seconds per input of the sizes that were tried often enough."""
        return {
            size: min(times)
            for (length, count, size), times in self._seconds.items()
            if (length, count) == (_length(example), workers) and len(times) >= _TRIALS and size <= limit
        }

    def _limit(self, example: Tensor) -> int:
        """Return the most inputs of a call."""
        limit = self._limits.get(_length(example), self.limit)
        return limit if self.samples is None else max(1, min(limit, self.samples // example.numel()))

    def ran_out_of_memory(self, count: int, example: Tensor) -> None:
        """Never again allow ``count`` inputs of this length in a call."""
        with self._lock:
            self._limits[_length(example)] = max(1, count // 2)


class WorkerPool:
    """Run functions in several threads, each with one processor core for torch; used in a ``with`` block.

    Args:
        count: How many; with 1 the work is done in the calling thread, with as many cores as torch is set to.
    """

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise ValueError(f"workers={count}: give 1 or more")
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        if self.count > 1:
            self._threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            # what a worker sets for itself becomes the default of threads that start later
            torch.set_num_threads(self._threads)

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """Results in the order of the parts; without gradients, and in the mixed precision of the caller.

        Parts are taken when a worker is about to be free, so that an iterator of many large ones stays lazy.
        """
        if self._pool is None:
            yield from map(torch.no_grad()(work), parts)
            return
        # whether gradients are kept and precision is mixed is a matter of each thread
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        mixed, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def in_worker(part: Part) -> Result:
            with torch.no_grad(), torch.autocast(kind, dtype, enabled=mixed):
                return work(part)

        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(self._pool.submit(in_worker, part))
            if len(waiting) > self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_time(parts: Sequence[Part], seconds: float | None, what: str) -> Iterator[Part]:
    """Yield parts of a work until a time has passed, at least one, and print how many are left out.

    Args:
        parts: Of the work.
        seconds: Wall time after which no part is begun; None for no limit.
        what: Name of the parts in the printed line.

    Raises:
        ValueError: If the time is not positive.
    """
    if seconds is not None and seconds <= 0:
        raise ValueError(f"max_seconds={seconds}: must be above 0, or null")
    started = time.monotonic()
    for number, part in enumerate(parts):
        if number and seconds is not None and time.monotonic() - started > seconds:
            print(f"{len(parts) - number} of {len(parts)} {what} left out: {seconds:g} s have passed")
            return
        yield part


class batched(Wrapper):  # noqa: N801, used like a function
    """Bound the number of inputs in a separator call, and make several calls at a time.

    Results do not change beyond rounding. `encore.inference.refine` separates and scores its candidates by
    the settings of a separator that is wrapped by this one last.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item; with several workers it must be
            thread-safe, and so must the quality.
        size: Largest number of inputs in a call; a `BatchSize` finds the fastest by timing, and whether
            several workers are faster; None for no bound.
        workers: Calls that are made at the same time, each in a thread that uses one processor core.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, separate: Separator, size: int | BatchSize | None = None, workers: int = 1) -> None:
        super().__init__(separate)
        if isinstance(size, int) and size < 1:
            raise ValueError(f"size={size}: must be at least 1, or None")
        self.size, self.workers = size, WorkerPool(workers).count

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` in calls of the size."""

        def work(part: Tensor) -> Tensor:
            return at_items(self.separate, part)(mixture[part])

        return torch.cat([found for _, found in self.in_parts(work, len(mixture), mixture[0])])

    def each(self, inputs: Tensor, ratio: Tensor) -> Tensor:
        """Separate every source from its own input in calls of the size, see `separate_each`."""

        def work(part: Tensor) -> Tensor:
            return separate_each(at_items(self.separate, part), inputs[part], ratio[part])

        parts = self.in_parts(work, len(inputs), inputs[0, 0], calls=inputs.shape[1])
        return torch.cat([found for _, found in parts])

    def in_parts(
        self, work: Callable[[Tensor], Result], count: int, example: Tensor, calls: int = 1
    ) -> Iterator[tuple[Tensor, Result]]:
        """Yield positions and their results, in balanced parts, enough for all workers.

        Args:
            work: Returns the result of positions ``(n,)``; called for halves if memory runs out.
            count: Number of positions.
            example: One input of the separator, ``(c, t)``.
            calls: Separator calls that ``work`` makes with all its positions; 0 is not timed.
        """
        # one input alone is best off with all cores
        workers, size = 1 if count == 1 else self.workers, self.size
        learning = size if isinstance(size, BatchSize) else None
        if isinstance(size, BatchSize):
            workers, size = size.choose(example, workers)
        wanted = size or count

        def timed(part: Tensor) -> list[tuple[Tensor, Result]]:
            before, start = _allocated(example), time.perf_counter()
            try:
                found = work(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                if learning is not None:
                    learning.ran_out_of_memory(len(part), example)
                torch.cuda.empty_cache()
                return [result for half in part.tensor_split(2) for result in timed(half)]
            if learning is not None and calls:
                peak, seconds = _peak_since(example, before), (time.perf_counter() - start) / calls
                learning.record(wanted, len(part), example, seconds, workers=workers, peak_bytes=peak)
            return [(part, found)]

        parts = min(count, workers * math.ceil(math.ceil(count / wanted) / workers))
        positions = torch.arange(count, device=example.device).tensor_split(parts)
        with WorkerPool(workers) as pool:
            for results in pool.map(timed, positions):
                yield from results


@contextmanager
def forward_mode() -> Iterator[None]:
    """Allow forward-mode derivatives, in one thread at a time.

    torch has one level of them for all threads: two at a time give zeros. Left out for all threads is oneDNN,
    whose recurrent layers lack them.
    """
    mkldnn: Any = torch.backends.mkldnn
    with _FORWARD_MODE:
        before = mkldnn.enabled
        mkldnn.enabled = False
        try:
            yield
        finally:
            mkldnn.enabled = before


def default_workers(device: torch.device) -> int:
    """Return one worker for each thread that torch uses on a CPU, else one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _length(example: Tensor) -> int:
    """Samples of one item, all channels, as a power of two."""
    return example.numel().bit_length()


def _allocated(example: Tensor) -> int:
    if not example.is_cuda:
        return 0
    torch.cuda.reset_peak_memory_stats(example.device)
    return torch.cuda.memory_allocated(example.device)


def _peak_since(example: Tensor, before: int) -> int:
    if not example.is_cuda:
        return 0
    torch.cuda.synchronize(example.device)
    return torch.cuda.max_memory_allocated(example.device) - before
