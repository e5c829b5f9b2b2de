"""Metrics in worker processes, and called by several threads: the values of one process and thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_toys import RATE, noisy, voices
from torch import Tensor

from encore.metrics import MetricPanel, estoi, get_metric, pesq, single_signals
from encore.metrics.processes import close_score_pools, score_pairs, score_pool

POOLED = ["pesq", "pesq_nb", "stoi", "estoi"]


def in_threads(work: Callable[[int], Tensor], count: int = 16) -> list[Tensor]:
    """Results of 0 to count, by four threads that Python switches between as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(work, range(count)))
    finally:
        sys.setswitchinterval(interval)


def process_ids(workers: int) -> list[int]:
    return [process.pid for process in score_pool(workers).processes]


def runs(process_id: int) -> bool:
    """Whether there is such a process that has not ended."""
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def ends(process_id: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(100):
        if not runs(process_id):
            return True
        time.sleep(0.1)
    return False


def test_processes_give_the_values_of_this_one_to_the_bit_in_order_and_nan_and_are_shared() -> None:
    close_score_pools()
    reference = voices(5, 2, seconds=1)
    estimate = noisy(reference)
    estimate[1, 0], reference[3] = torch.nan, 0
    panel = MetricPanel(POOLED, sample_rate=RATE, workers=2)(estimate, reference)
    for name, expected in MetricPanel(POOLED, sample_rate=RATE)(estimate, reference).items():
        assert expected.isnan().tolist() == [False, True, False, True, False]
        assert expected[[0, 2, 4]].unique().numel() == 3
        for scores in (panel[name], get_metric(name, sample_rate=RATE, workers=2).score(estimate, reference)):
            assert torch.equal(scores.nan_to_num(-1), expected.nan_to_num(-1))
    first = process_ids(2)
    assert 1 <= len(first) <= 2
    close_score_pools()
    assert not any(runs(process_id) for process_id in first)


def test_long_signals_are_scored_in_the_same_pieces() -> None:
    reference = torch.cat([voices(1, 1, seconds=15), torch.zeros(1, 1, 15 * RATE)], dim=-1)
    estimate = noisy(reference)
    assert torch.equal(pesq(estimate, reference, workers=1), pesq(estimate, reference))


def test_nothing_is_started_for_what_runs_in_torch_or_cannot_be_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    close_score_pools()
    reference = voices(1, 1)
    for name in ("si_sdr", "sdr", "dnsmos_p808"):
        assert get_metric(name, sample_rate=RATE, workers=2).score(noisy(reference), reference).isfinite()
    assert pesq(torch.zeros(3, RATE), torch.zeros(3, RATE), workers=2).isnan().all()


def test_a_process_needs_no_torch() -> None:
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); print('torch' in sys.modules)"
    command = [sys.executable, "-P", "-c", program, single_signals.__file__]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_dead_process_is_an_error_that_says_so_and_is_replaced() -> None:
    estimate, reference = noisy(voices(1, 1)), voices(1, 1)
    expected = pesq(estimate, reference, workers=1)
    (before,) = process_ids(1)
    os.kill(before, signal.SIGKILL)
    with pytest.raises(
        RuntimeError, match=r"process that computed 'pesq' ended with status -9: .* fewer workers"
    ):
        pesq(estimate, reference, workers=1)
    assert torch.equal(pesq(estimate, reference, workers=1), expected)
    (after,) = process_ids(1)
    assert after != before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_in_a_process_is_raised_here(workers: int) -> None:
    pair = (np.ones(RATE), np.ones(RATE))
    with pytest.raises(KeyError, match="swb"):
        score_pairs("pesq", [pair], workers=workers, mode="swb")
    assert score_pairs("pesq", [pair], workers=workers, mode="nb")  # it goes on


def _score_in_child(estimate: Tensor, reference: Tensor, results: multiprocessing.Queue) -> None:
    results.put((pesq(estimate, reference, workers=1).item(), process_ids(1)))


def test_a_forked_daemon_has_processes_of_its_own_which_end_with_it() -> None:
    estimate, reference = noisy(voices(1, 1)), voices(1, 1)
    expected = pesq(estimate, reference, workers=1).item()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_score_in_child, args=(estimate, reference, results), daemon=True)
    child.start()
    score, (own,) = results.get(timeout=30)
    child.join()
    assert (score, child.exitcode) == (expected, 0)
    assert own not in process_ids(1)
    assert ends(own)


def test_a_script_needs_no_guard_and_takes_its_processes_along_even_if_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from encore.metrics.processes import score_pairs, score_pool\n"
        "signals = np.random.default_rng(0).standard_normal((3, 2, 16000))\n"
        "expected = score_pairs('pesq', signals, mode='wb')\n"
        "assert score_pairs('pesq', signals, workers=2, mode='wb') == expected\n"
        "print(*[process.pid for process in score_pool(2).processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert len(done.stdout.split()) == 2
    assert all(ends(int(process_id)) for process_id in done.stdout.split())


@pytest.mark.parametrize(
    ("name", "workers"),
    [*((name, workers) for name in POOLED for workers in (0, 2)), ("sdr", 0), ("dnsmos_ovrl", 0)],
)
def test_four_threads_get_the_scores_of_one(name: str, workers: int) -> None:
    reference = voices(4, 1, seconds=0.6)
    estimate = noisy(reference)
    metric = get_metric(name, sample_rate=RATE, workers=workers)
    expected = [metric.score(estimate[k : k + 1], reference[k : k + 1]) for k in range(4)]
    scores = in_threads(lambda k: metric.score(estimate[k % 4][None], reference[k % 4][None]), 8)
    assert all(torch.equal(score, expected[k % 4]) for k, score in enumerate(scores))


def test_threads_share_numpy_s_generator_and_the_warnings_filters_without_a_trace(
    recwarn: pytest.WarningsRecorder,
) -> None:
    reference = voices(1, 1, seconds=0.8)
    # its score is decided by the noise that pystoi adds to empty bands
    low = torch.fft.irfft(torch.fft.rfft(reference)[..., : reference.shape[-1] // 20], n=reference.shape[-1])
    expected = estoi(low, reference, sample_rate=RATE)
    state, filters = np.random.get_state()[1].copy(), list(warnings.filters)  # noqa: NPY002

    def score(k: int) -> Tensor:
        if k % 2:  # too short, of which pystoi warns
            return estoi(low[..., :4000], reference[..., :4000], sample_rate=RATE)
        return estoi(low, reference, sample_rate=RATE)

    scores = in_threads(score)
    assert all(torch.equal(value, expected) for value in scores[::2])
    assert all(value.isnan() for value in scores[1::2])
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert warnings.filters == filters
    assert not recwarn.list


def test_without_pesq_a_process_computes_stoi_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pesq.py").write_text("raise ModuleNotFoundError(\"No module named 'pesq'\", name='pesq')\n")
    monkeypatch.syspath_prepend(tmp_path)
    close_score_pools()
    pair = (np.random.default_rng(0).standard_normal((2, RATE)),)
    assert score_pairs("stoi", pair, workers=1, sample_rate=RATE) == score_pairs(
        "stoi", pair, sample_rate=RATE
    )
    with pytest.raises(ModuleNotFoundError, match="pesq"):
        score_pairs("pesq", pair, workers=1, mode="wb")
    close_score_pools()
