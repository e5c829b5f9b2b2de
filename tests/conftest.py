from __future__ import annotations

import pytest
import torch
from torch import Generator


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors everywhere: more threads only cost, and sums come out the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> Generator:
    return torch.Generator().manual_seed(0)
