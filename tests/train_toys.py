"""train.py as from the command line, in this process or, where that matters, in one of its own."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.utilities import rank_zero_only
from wandb.proto.wandb_internal_pb2 import Record

from encore import train as script

SMALL = (
    "experiment=speech_denoising",
    "model=conv_tasnet_tiny",
    "data.num_workers=0",
    "data.segment_seconds=0.25",
    "data.batch_size=2",
    "callbacks.multi_step.metrics=[snr]",
    "callbacks.multi_step.methods.dnsmos_ovrl=null",
    "callbacks.multi_step.methods.si_sdr.search.steps=1",
    "callbacks.multi_step.methods.si_sdr.search.candidates=2",
)
"""A training of a second."""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def wandb_records(file: Path) -> list[Any]:
    """Read the records of an offline run: pieces of LevelDB's log format, after a header of 7 bytes."""
    content, place, whole, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:  # no header fits into the rest of the block
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(Record.FromString(whole))
            whole = b""
    return records


def train(folder: Path, *overrides: str, **environment: str) -> Done:
    """Run ``train.py`` in this process, which saves the start of another one, and leave no trace in it."""
    out, err = StringIO(), StringIO()
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    level, hook, status = root.level, sys.excepthook, 0
    with (
        chdir(folder),
        torch.random.fork_rng(devices=[]),
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", [str(script.__file__), *overrides]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        GlobalHydra.instance().clear()
        try:
            script.main()
        except SystemExit as stop:
            # as the interpreter does: a message is printed, and the status is 1
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            print(stop.code if isinstance(stop.code, str) else "", file=err)
        finally:
            GlobalHydra.instance().clear()
            root.handlers, sys.excepthook = handlers, hook
            root.setLevel(level)
            rank_zero_only.rank = 0
    return Done(status, out.getvalue(), err.getvalue())


def interrupted(folder: Path, number: int, *overrides: str, group: bool = False) -> Done:
    """Run ``train.py`` as a user does, and send it a signal, or all its processes, after a checkpoint."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        [sys.executable, str(script.__file__), *overrides],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not [*folder.glob("outputs/*/checkpoints/last.ckpt")]:
            time.sleep(0.1)
        (os.killpg if group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def train_alone(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``train.py`` as a user does."""
    return subprocess.run(
        [sys.executable, str(script.__file__), *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
    )
