"""Blind metrics by published networks: NISQA, SQUIM and DistillMOS."""

from __future__ import annotations

import math
import pickle
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import read_safely
from encore.common.packages import require
from encore.metrics.single_items import SILENCE, OnDevices, SingleItemMetric

MINIMUM_SECONDS = 0.2
"""Clips below it score NaN: NISQA needs 0.15 s, and listeners judged no shorter ones."""

_TIMEOUT_SECONDS = 20
_NISQA_ADDRESS = "https://github.com/gabrielmittag/NISQA/raw/refs/heads/master/weights/nisqa.tar"
_SQUIM_FILE = "squim_objective_dns2020.pth"
_SQUIM_ADDRESS = f"https://download.pytorch.org/torchaudio/models/{_SQUIM_FILE}"

Scorer = Callable[[Tensor, int], Tensor]
"""``(1, time)`` and its rate in Hz to all of a network's numbers, ``(number,)``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """One number of a published network.

    Attributes:
        load: Opens it from its weights.
        weights: Returns the path of its weights.
        address: Where they are fetched from; None if a package holds them.
        packages: Optional packages that it needs.
        number: Index among the network's numbers.
        scale: A difference that counts as one unit where metrics are joined.
        rate: Rate in Hz that audio is resampled to; None if it is scored at its own.
        maximum_seconds: Longer signals are scored in equal pieces of at most this, and the mean is taken.
    """

    load: Callable[[Path], Scorer]
    weights: Callable[[], Path]
    address: str | None
    packages: tuple[str, ...]
    number: int
    scale: float
    rate: int | None
    maximum_seconds: float


class NetworkMetric(SingleItemMetric):
    """A number of a published network, blind, the mean over channels.

    Silent clips (peak below half a step of 16 bits) and clips below 0.2 s score NaN.

    Args:
        name: One of `NETWORKS`.
        sample_rate: Rate in Hz of the audio that it scores.

    Raises:
        ValueError: If the rate is too low, a package is missing, or the weights are and cannot be fetched.

    Sources: G. Mittag et al., "NISQA: a deep CNN-self-attention model for multidimensional speech quality
    prediction with crowdsourced datasets", 2021; A. Kumar et al., "TorchAudio-Squim: reference-less speech
    quality and intelligibility measures in TorchAudio", 2023; B. Stahl and H. Gamper, "Distillation and
    pruning for scalable self-supervised representation-based speech quality assessment", 2025.
    """

    needs_reference = False

    def __init__(self, name: str, *, sample_rate: int) -> None:
        network = NETWORKS[name]
        if network.rate is not None and sample_rate < network.rate:
            raise ValueError(
                f"sample_rate={sample_rate} is below the {network.rate} Hz that {name!r} needs: "
                "leave it out, or use audio of a higher rate"
            )
        self.name, self.sample_rate = name, sample_rate
        self.rate, self.scale = network.rate, network.scale
        self._network = network
        path = fetch_weights(name)
        try:
            self._scorer = network.load(path)
        except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
            raise ValueError(
                f"'{path}' holds no weights for {name!r}: {one_line(error)}; delete it to fetch it again"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(NetworkMetric, sample_rate=self.sample_rate), (self.name,)

    def score_signal(self, estimate: Tensor, reference: Tensor | None) -> float:
        """See `SingleItemMetric`."""
        rate = self.rate or self.sample_rate
        if len(estimate) < MINIMUM_SECONDS * rate or estimate.abs().amax() < SILENCE:
            return math.nan
        pieces = math.ceil(len(estimate) / (self._network.maximum_seconds * rate))
        scores = [
            float(self._scorer(piece[None], rate)[self._network.number])
            for piece in torch.tensor_split(estimate, pieces)
            if piece.abs().amax() >= SILENCE
        ]
        return sum(scores) / len(scores)


def fetch_weights(name: str) -> Path:
    """Return the path of the weights of one of `NETWORKS`, fetched if they are not there yet.

    Raises:
        ValueError: If a package is missing, or the weights cannot be fetched.
    """
    network = NETWORKS[name]
    for package in network.packages:
        require(package, needed_by=f"metric {name!r}", extra="metrics")
    path = network.weights()
    if not path.is_file() and network.address is not None:
        try:
            _fetch(network.address, path)
        except OSError as error:
            raise ValueError(
                f"name={name!r} needs the weights '{path}', which could not be fetched ({error}): run "
                "python -m encore.cli.prefetch --metrics where there is a network, or copy the file there"
            ) from error
    return path


def _fetch(address: str, path: Path) -> None:
    """Download a file; an interrupted download is not left under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer, unfinished.open("wb") as file:
        while block := answer.read(1 << 20):
            file.write(block)
    unfinished.replace(path)


def _nisqa_weights() -> Path:
    from torchmetrics.functional.audio.nisqa import NISQA_DIR

    return Path(NISQA_DIR).expanduser() / "nisqa.tar"


def _load_nisqa(path: Path) -> Scorer:
    # it reads its file as tensors and plain values only, and once for all metrics
    from torchmetrics.functional.audio.nisqa import non_intrusive_speech_quality_assessment as nisqa

    def score(signal: Tensor, rate: int) -> Tensor:
        # librosa computes its spectra
        return nisqa(signal.cpu(), rate)[0]

    score(torch.full((1, 8000), 0.1), 16000)
    return score


def _squim_weights() -> Path:
    return Path(torch.hub.get_dir()) / "torchaudio" / "models" / _SQUIM_FILE


def _load_squim(path: Path) -> Scorer:
    from torchaudio.models import squim_objective_base

    network: nn.Module = squim_objective_base()
    network.load_state_dict(read_safely(path))
    networks = OnDevices(network)
    return lambda signal, rate: torch.cat(networks.on(signal.device)(signal))


def _distillmos_weights() -> Path:
    package = require("distillmos", needed_by="metric 'distillmos'", extra="metrics")
    assert package.__file__ is not None
    return Path(package.__file__).parent / "weights" / "distill_mos_v7.pt"


def _load_distillmos(path: Path) -> Scorer:
    # it reads its weights as tensors and plain values only, and prints their path
    with redirect_stdout(StringIO()):
        package = require("distillmos", needed_by="metric 'distillmos'", extra="metrics")
        networks = OnDevices(package.ConvTransformerSQAModel())
    return lambda signal, rate: networks.on(signal.device)(signal).flatten()


_NISQA: dict[str, Any] = {
    "load": _load_nisqa,
    "weights": _nisqa_weights,
    "address": _NISQA_ADDRESS,
    "packages": ("librosa", "requests"),
    "scale": 0.1,
    "rate": None,
    # its windows are 40 ms apart, and it takes 1300 of them
    "maximum_seconds": 50.0,
}
_SQUIM: dict[str, Any] = {
    "load": _load_squim,
    "weights": _squim_weights,
    "address": _SQUIM_ADDRESS,
    "packages": (),
    "rate": 16000,
    # its attention compares all 500 frames of a second with each other
    "maximum_seconds": 10.0,
}

NETWORKS: Mapping[str, Network] = {
    "nisqa_mos": Network(number=0, **_NISQA),
    "nisqa_noisiness": Network(number=1, **_NISQA),
    "nisqa_discontinuity": Network(number=2, **_NISQA),
    "nisqa_coloration": Network(number=3, **_NISQA),
    "nisqa_loudness": Network(number=4, **_NISQA),
    "squim_stoi": Network(number=0, scale=0.01, **_SQUIM),
    "squim_pesq": Network(number=1, scale=0.1, **_SQUIM),
    "squim_si_sdr": Network(number=2, scale=1.0, **_SQUIM),
    "distillmos": Network(
        load=_load_distillmos,
        weights=_distillmos_weights,
        address=None,
        packages=("distillmos",),
        number=0,
        scale=0.1,
        rate=16000,
        maximum_seconds=60.0,
    ),
}
"""Every published network's number by its name; higher is better in all of them."""
