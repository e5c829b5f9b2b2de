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
from dataclasses import dataclass
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

FORWARD_MODE = Lock()
"""Held during a forward-mode derivative: torch has one level for all threads; two at a time give zeros."""


class BatchSize:
    """The fastest number of inputs in a separator call, found by timing the calls that are made anyway.

    Not a call is made for it. From four inputs or from one, whichever is faster, sizes are doubled, or else
    halved, for as long as that saves 3 % of the time per input; each is tried twice. On a GPU a size is tried
    only if twice the memory of its half is free, and a call that runs out of memory is repeated in halves and
    lowers the limit. What is learnt holds for audio of one length (rounded to a power of two) and one number
    of workers; use one object for one separator on one device, for as many refinements as you like, from any
    thread.

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

    def choose(self, example: Tensor, workers: int = 1) -> int:
        """Return how many inputs like ``example`` ``(c, t)`` the next calls by the workers should hold."""
        length = _length(example)
        with self._lock:
            limit = self._limit(example)
            costs = {
                size: min(times)
                for (own, beside, size), times in self._seconds.items()
                if (own, beside) == (length, workers) and len(times) >= _TRIALS and size <= limit
            }
            # one input alone is tried too: kernels for it can be others, and twice as fast
            starts = (min(_FIRST_SIZE, limit), 1)
            for size in starts:
                if size not in costs:
                    return size
            best = min(starts, key=lambda size: costs[size])
            # upwards first, and downwards only from where the climb began
            for factor in (2.0, 0.5):
                start = best
                while best in costs and 1 <= (following := int(factor * best)) <= limit:
                    if following not in costs:
                        return following
                    if costs[following] > _WORTHWHILE * costs[best]:
                        break
                    best = following
                if best != start:
                    break
            return best

    def choose_workers(self, example: Tensor, most: int) -> int:
        """How many calls on inputs like ``example`` ``(c, t)`` to make at once: 1 on all cores, or ``most``.

        Whichever separates more inputs a second; both are tried, with four inputs in a call and with one.
        """
        length = _length(example)
        with self._lock:
            rates: dict[int, dict[int, float]] = {most: {}, 1: {}}
            for (own, workers, size), times in self._seconds.items():
                if own == length and workers in rates and len(times) >= _TRIALS:
                    rates[workers][size] = workers / min(times)
            starts = {min(_FIRST_SIZE, self._limit(example)), 1}
            for workers, by_size in rates.items():
                if not starts <= by_size.keys():
                    return workers
            return max(rates, key=lambda workers: max(rates[workers].values()))

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

    def _limit(self, example: Tensor) -> int:
        """Most inputs of a call."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the inputs of one round reach the separator.

    Attributes:
        parts: Positions of the inputs, one tensor a call.
        size: How many inputs a call was meant to hold, before they were balanced.
        workers: Calls that are made at a time.
    """

    parts: Sequence[Tensor]
    size: int
    workers: int


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
        self.size, self.pool = size, WorkerPool(workers)

    def with_own_pool(self) -> batched:
        """Return the same with threads of its own, so that several can be in use at a time."""
        return batched(self.separate, self.size, self.pool.count)

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` in calls of the size."""
        own = self.with_own_pool()
        with own.pool:
            return own.separate_items(mixture)

    def each(self, inputs: Tensor, ratio: Tensor) -> Tensor:
        """Separate every source from its own input in calls of the size, see `separate_each`."""

        def work(part: Tensor) -> Tensor:
            return separate_each(at_items(self.separate, part), inputs[part], ratio[part])

        own = self.with_own_pool()
        with own.pool:
            return own.in_parts(work, len(inputs), inputs[0, 0], calls=inputs.shape[1])

    def separate_items(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, c, t)``, all items of the batch, with the threads of the pool that is open."""
        return self.in_parts(
            lambda part: at_items(self.separate, part)(mixture[part]), len(mixture), mixture[0]
        )

    def in_parts(
        self, work: Callable[[Tensor], Tensor], count: int, example: Tensor, calls: int = 1
    ) -> Tensor:
        """Return the estimates ``(count, ...)`` that ``work`` makes of positions, part by part."""
        plan = self.plan(count, example)
        return torch.cat(list(self.run(lambda part: self.timed(work, part, plan, example, calls), plan)))

    def plan(self, count: int, example: Tensor) -> Plan:
        """Return positions 0 to ``count`` in balanced parts, enough for all workers."""
        # one input alone is best off with all cores
        workers = 1 if count == 1 else self.pool.count
        if isinstance(self.size, BatchSize):
            workers = self.size.choose_workers(example, workers)
            size = self.size.choose(example, workers)
        else:
            size = count if self.size is None else self.size
        wanted = math.ceil(count / size)
        wanted = min(count, workers * math.ceil(wanted / workers))
        parts = torch.arange(count, device=example.device).tensor_split(wanted)
        return Plan(parts=parts, size=size, workers=workers)

    def run(self, work: Callable[[Tensor], Result], plan: Plan) -> Iterator[Result]:
        """Yield the results of the parts of a plan, in order."""
        return self.pool.map(work, plan.parts) if plan.workers > 1 else map(torch.no_grad()(work), plan.parts)

    def timed(
        self,
        separated: Callable[[Tensor], Tensor],
        part: Tensor,
        plan: Plan,
        example: Tensor,
        calls: int = 1,
    ) -> Tensor:
        """Separate one part of a plan and note how long it took; in halves if it does not fit into memory.

        Args:
            separated: Returns the estimates of positions ``(n,)``.
            part: The positions.
            plan: Says what the time is typical of.
            example: One input ``(c, t)``.
            calls: Separator calls that ``separated`` makes.
        """
        learning = self.size if isinstance(self.size, BatchSize) else None
        before = 0 if learning is None else _allocated(example)
        start = time.perf_counter()
        try:
            estimates = separated(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            if learning is not None:
                learning.ran_out_of_memory(len(part), example)
            torch.cuda.empty_cache()
            halves = part.tensor_split(2)
            return torch.cat([self.timed(separated, half, plan, example, calls) for half in halves])
        if learning is not None:
            peak, seconds = _peak_since(example, before), (time.perf_counter() - start) / calls
            learning.record(plan.size, len(part), example, seconds, workers=plan.workers, peak_bytes=peak)
        return estimates


@contextmanager
def without_fused_kernels() -> Iterator[None]:
    """Leave out oneDNN, whose recurrent layers lack the forward-mode derivative; a switch for all threads."""
    mkldnn: Any = torch.backends.mkldnn
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
