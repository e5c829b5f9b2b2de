"""How the candidates of a round reach the separator: in parts of what size, and how many at a time.

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

from encore.models.types import Separator

Part = TypeVar("Part")
Result = TypeVar("Result")

_FIRST_SIZE = 4
_TRIALS = 2
_WORTHWHILE = 0.97
_MEMORY_SHARE = 0.8

FORWARD_MODE = Lock()
"""Held during a forward-mode derivative: torch has one level for all threads; two at a time give zeros."""


class BatchSize:
    """The fastest number of blends in a separator call, found by timing the calls that are made anyway.

    Not a call is made for it. From four blends or from one, whichever is faster, sizes are doubled, or else
    halved, for as long as that saves 3 % of the time per blend; each is tried twice. On a GPU a size is tried
    only if twice the memory of its half is free, and a call that runs out of memory is repeated in halves and
    lowers the limit. What is learnt holds for audio of one length (rounded to a power of two) and one number
    of lanes; use one object for one separator on one device, for as many refinements as you like, from any
    thread.

    Args:
        limit: Never more than this many in a call.
        samples: Nor more than this many samples, all channels together, unless a single blend has more.
    """

    def __init__(self, limit: int = 256, samples: int | None = None) -> None:
        if limit < 1 or (samples is not None and samples < 1):
            raise ValueError(f"limit={limit} and samples={samples}: at least one blend goes into a call")
        self.limit, self.samples = limit, samples
        self._limits: dict[int, int] = {}
        self._seconds: dict[tuple[int, int, int], list[float]] = {}
        self._lock = Lock()

    def choose(self, example: Tensor, lanes: int = 1) -> int:
        """How many blends like ``example`` ``(c, t)`` the next calls, made in so many lanes, should hold."""
        length = _length(example)
        with self._lock:
            limit = self._limit(example)
            costs = {
                size: min(times)
                for (own, beside, size), times in self._seconds.items()
                if (own, beside) == (length, lanes) and len(times) >= _TRIALS and size <= limit
            }
            # one blend alone is tried too: kernels for it can be others, and twice as fast
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

    def choose_lanes(self, example: Tensor, most: int) -> int:
        """How many calls on blends like ``example`` ``(c, t)`` to make at once: 1 on all cores, or ``most``.

        Whichever separates more blends a second; both are tried, with four blends in a call and with one.
        """
        length = _length(example)
        with self._lock:
            rates: dict[int, dict[int, float]] = {most: {}, 1: {}}
            for (own, lanes, size), times in self._seconds.items():
                if own == length and lanes in rates and len(times) >= _TRIALS:
                    rates[lanes][size] = lanes / min(times)
            starts = {min(_FIRST_SIZE, self._limit(example)), 1}
            for lanes, by_size in rates.items():
                if not starts <= by_size.keys():
                    return lanes
            return max(rates, key=lambda lanes: max(rates[lanes].values()))

    def record(
        self, size: int, blends: Tensor, seconds: float, *, lanes: int = 1, peak_bytes: int = 0
    ) -> None:
        """Note what a call took; one with half as many blends as was said, or fewer, tells nothing.

        Args:
            size: What `choose` had said.
            blends: ``(n, c, t)`` that were separated, about as many.
            seconds: How long that took.
            lanes: How many calls were made at a time.
            peak_bytes: GPU memory that it needed beyond what was taken before.
        """
        length = _length(blends[0])
        if 2 * len(blends) <= size:
            return
        with self._lock:
            self._seconds.setdefault((length, lanes, size), []).append(seconds / len(blends))
            if blends.is_cuda and 2 * peak_bytes > _MEMORY_SHARE * torch.cuda.mem_get_info(blends.device)[0]:
                self._limits[length] = min(size, self._limits.get(length, self.limit))

    def _limit(self, example: Tensor) -> int:
        """Most blends of a call."""
        limit = self._limits.get(_length(example), self.limit)
        return limit if self.samples is None else max(1, min(limit, self.samples // example.numel()))

    def ran_out_of_memory(self, blends: Tensor) -> None:
        """Never again allow as many blends of this length."""
        with self._lock:
            self._limits[_length(blends[0])] = max(1, len(blends) // 2)


class Lanes:
    """Threads that work side by side, each with one processor core for torch; used in a ``with`` block.

    Args:
        count: How many; with 1 the work is done in the calling thread, with as many cores as torch is set to.
    """

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise ValueError(f"lanes={count}: give 1 or more")
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
            # what a lane sets for itself becomes the default of threads that start later
            torch.set_num_threads(self._threads)

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """Results in the order of the parts; without gradients, and in the mixed precision of the caller.

        Parts are taken when a lane is about to be free, so that an iterator of many large ones stays lazy.
        """
        if self._pool is None:
            yield from map(torch.no_grad()(work), parts)
            return
        # whether gradients are kept and precision is mixed is a matter of each thread
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        mixed, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def in_lane(part: Part) -> Result:
            with torch.no_grad(), torch.autocast(kind, dtype, enabled=mixed):
                return work(part)

        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(self._pool.submit(in_lane, part))
            if len(waiting) > self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the blends of one round reach the separator.

    Attributes:
        parts: Positions of the blends, one tensor a call.
        size: How many blends a call was meant to hold, before they were balanced.
        lanes: Calls that are made at a time.
    """

    parts: Sequence[Tensor]
    size: int
    lanes: int


class Execution(Lanes):
    """Calls a separator for one refinement; used in a ``with`` block.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``.
        max_batch: Largest number of blends in a call, or what finds it, or None for no bound.
        lanes: Parts of a round that are worked on at a time; if ``max_batch`` is found by timing, so is
            whether one at a time, on all cores, is faster.
    """

    def __init__(self, separate: Separator, *, max_batch: int | BatchSize | None, lanes: int) -> None:
        super().__init__(lanes)
        self.separate: Any = separate
        self.max_batch = max_batch

    def plan(self, count: int, example: Tensor) -> Plan:
        """Positions 0 to ``count`` in balanced parts, enough for all lanes."""
        # one blend alone is best off with all cores
        lanes = 1 if count == 1 else self.count
        if isinstance(self.max_batch, BatchSize):
            lanes = self.max_batch.choose_lanes(example, lanes)
            size = self.max_batch.choose(example, lanes)
        else:
            size = count if self.max_batch is None else self.max_batch
        wanted = math.ceil(count / size)
        wanted = min(count, lanes * math.ceil(wanted / lanes))
        parts = torch.arange(count, device=example.device).tensor_split(wanted)
        return Plan(parts=parts, size=size, lanes=lanes)

    def run(self, work: Callable[[Tensor], Result], plan: Plan) -> Iterator[Result]:
        """Results of the parts of a plan, in order."""
        return self.map(work, plan.parts) if plan.lanes > 1 else map(torch.no_grad()(work), plan.parts)

    def call(self, mixtures: Tensor, plan: Plan, told: Sequence[Tensor] = ()) -> Tensor:
        """One separator call, timed and checked; in halves where it does not fit into memory.

        Args:
            mixtures: ``(n, c, t)``, one part of the plan.
            plan: Says what the time that it takes is typical of.
            told: What else the separator is given, each ``(n, ...)``.

        Raises:
            ValueError: If what comes back does not fit.
        """
        learning = self.max_batch if isinstance(self.max_batch, BatchSize) else None
        before = 0 if learning is None else _allocated(mixtures)
        start = time.perf_counter()
        try:
            estimates = self.separate(mixtures, *told)
        except torch.OutOfMemoryError:
            if len(mixtures) == 1:
                raise
            if learning is not None:
                learning.ran_out_of_memory(mixtures)
            torch.cuda.empty_cache()
            halves = zip(*(whole.tensor_split(2) for whole in (mixtures, *told)), strict=True)
            return torch.cat([self.call(half, plan, rest) for half, *rest in halves])
        if learning is not None:
            peak, seconds = _peak_since(mixtures, before), time.perf_counter() - start
            learning.record(plan.size, mixtures, seconds, lanes=plan.lanes, peak_bytes=peak)
        expected = (len(mixtures), *mixtures.shape[1:])
        if estimates.ndim != 4 or (estimates.shape[0], *estimates.shape[2:]) != expected:
            raise ValueError(
                f"separate returned shape {tuple(estimates.shape)} for mixtures {tuple(mixtures.shape)}: it"
                " must map (batch, channel, time) to (batch, source, channel, time) of the same length"
            )
        return estimates

    def unfused_call(self, mixtures: Tensor, plan: Plan, told: Sequence[Tensor] = ()) -> Tensor:
        """As `call`, by kernels that have a forward-mode derivative: oneDNN's recurrent ones have none.

        Within a derivative only, whose lock keeps the switch, one for all threads, from being changed twice.
        """
        with without_fused_kernels():
            return self.call(mixtures, plan, told)


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


def usual_lanes(device: torch.device) -> int:
    """Lanes that keep the processor busy: one for each thread that torch uses on a CPU, else one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _length(example: Tensor) -> int:
    """Samples of one item, all channels, as a power of two."""
    return example.numel().bit_length()


def _allocated(mixtures: Tensor) -> int:
    if not mixtures.is_cuda:
        return 0
    torch.cuda.reset_peak_memory_stats(mixtures.device)
    return torch.cuda.memory_allocated(mixtures.device)


def _peak_since(mixtures: Tensor, before: int) -> int:
    if not mixtures.is_cuda:
        return 0
    torch.cuda.synchronize(mixtures.device)
    return torch.cuda.max_memory_allocated(mixtures.device) - before
