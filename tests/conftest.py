from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from infer_toys import separator_file
from recording_toys import package_tree
from speech_toys import RATE, voices
from torch import Generator

from encore.cli import file_scores


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors everywhere: more threads only cost, and sums come out the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training, three validation and two test recordings in the VoiceBank-DEMAND layout."""
    root = tmp_path_factory.mktemp("vbd")
    rng, speech = np.random.default_rng(0), iter(voices(9, seconds=1.8).numpy())
    train = ["p228_001", "p228_002", "p230_001", "p230_002", "p226_001", "p226_002", "p287_001"]
    for part, names in (("trainset_28spk", train), ("testset", ["p232_001", "p257_001"])):
        for kind in ("clean", "noisy"):
            (root / f"{kind}_{part}_wav").mkdir()
        for name in names:
            clean = next(speech)[: round(rng.uniform(1.2, 1.8) * RATE)]
            noise = rng.standard_normal(len(clean)) * 0.02
            soundfile.write(root / f"clean_{part}_wav" / f"{name}.wav", clean, RATE)
            soundfile.write(root / f"noisy_{part}_wav" / f"{name}.wav", clean + noise, RATE)
    return root


@pytest.fixture(scope="session")
def mono(tmp_path_factory: pytest.TempPathFactory) -> str:
    return separator_file(tmp_path_factory.mktemp("separator"), "mono")


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> str:
    return separator_file(tmp_path_factory.mktemp("separator"), "two", ("speech", "noise"))


@pytest.fixture(scope="session")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return separator_file(tmp_path_factory.mktemp("separator"), "stereo", channels=2)


@pytest.fixture
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(_rate: int, _channels: int, *, has_reference: bool) -> list[str]:
        return ["si_sdr", "stoi"] if has_reference else []

    monkeypatch.setattr(file_scores, "METRIC_NAMES", ("si_sdr", "stoi"))
    monkeypatch.setattr(file_scores, "default_metrics", few)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of recordings, each unpacked in a folder of its own."""
    return package_tree(tmp_path_factory.mktemp("packages"))
