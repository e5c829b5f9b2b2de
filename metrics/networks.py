"""Blind metrics by published networks: NISQA, SQUIM and DistillMOS.

Nothing of them is imported, read or fetched before a name is used. Every signal is scored by itself, so that
no batch-mate can matter.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import download, read_safely
from encore.common.packages import require
from encore.metrics.blind import SILENCE

MINIMUM_SECONDS = 0.2
"""Clips below it score NaN: NISQA needs 0.15 s, and listeners judged no shorter ones."""

_CPU = torch.device("cpu")
_SQUIM_FILE = "squim_objective_dns2020.pth"

Scorer = Callable[[Tensor, int], Tensor]
"""``(1, time)`` and its rate in Hz to all of a network's numbers, ``(number,)``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A published network.

    Attributes:
        scales: For each of its numbers, in their order, the metric's name and what counts as one unit of it.
        weights: Returns the path of its weights.
        load: Opens it from its weights on a device.
        address: Where the weights are fetched from; None if a package holds them.
        packages: Optional packages that it needs.
        rate: Rate in Hz that it takes; None if it takes any.
        maximum_seconds: Longer signals are scored in equal pieces of at most this, and the mean is taken.
    """

    scales: Mapping[str, float]
    weights: Callable[[], Path]
    load: Callable[[Path, torch.device], Scorer]
    address: str | None = None
    packages: tuple[str, ...] = ()
    rate: int | None = None
    maximum_seconds: float


@torch.no_grad()
def network_scores(
    family: str, estimates: Tensor, *, sample_rate: int, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return numbers of one of `NETWORKS`.

    Args:
        family: Which network.
        estimates: ``(..., channel, time)`` of full scale 1.
        sample_rate: Rate in Hz, the network's own.
        names: Of the network's numbers.

    Returns:
        For each name ``(..., channel)``, higher is better; NaN for a signal with a non-finite sample, below
        0.2 s, or silent (peak below half a step of 16 bits).

    Raises:
        ValueError: As of `open_network`.

    Sources: G. Mittag et al., "NISQA: a deep CNN-self-attention model for multidimensional speech quality
    prediction with crowdsourced datasets", 2021; A. Kumar et al., "TorchAudio-Squim: reference-less speech
    quality and intelligibility measures in TorchAudio", 2023; B. Stahl and H. Gamper, "Distillation and
    pruning for scalable self-supervised representation-based speech quality assessment", 2025.
    """
    network, scorer = NETWORKS[family], open_network(names[0], estimates.device)

    def numbers(signal: Tensor) -> list[float]:
        if len(signal) < MINIMUM_SECONDS * sample_rate or not SILENCE <= signal.abs().amax() < math.inf:
            return [math.nan] * len(network.scales)
        pieces = math.ceil(len(signal) / (network.maximum_seconds * sample_rate))
        scores = [
            scorer(piece[None], sample_rate).tolist()
            for piece in torch.tensor_split(signal, pieces)
            if piece.abs().amax() >= SILENCE
        ]
        return [sum(column) / len(column) for column in zip(*scores, strict=True)]

    # mixed precision, where it is on, would change the scores
    with torch.autocast(estimates.device.type, enabled=False):
        rows = [numbers(signal) for signal in estimates.float().flatten(0, -2)]
    scores = estimates.new_tensor(rows).reshape(*estimates.shape[:-1], len(network.scales))
    return {name: scores[..., list(network.scales).index(name)] for name in names}


def open_network(name: str, device: torch.device = _CPU) -> Scorer:
    """Open the network of a metric, once for each process and device.

    Raises:
        ValueError: If a package is missing, or the weights are and cannot be fetched.
    """
    family = _family(name)
    if (family, device) not in _opened:
        path = fetch_weights(name)
        try:
            _opened[family, device] = NETWORKS[family].load(path, device)
        except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
            raise ValueError(
                f"'{path}' holds no weights for {name!r}: {one_line(error)}; delete it to fetch it again"
            ) from error
    return _opened[family, device]


_opened: dict[tuple[str, torch.device], Scorer] = {}


def _family(name: str) -> str:
    return next(family for family, network in NETWORKS.items() if name in network.scales)


def fetch_weights(name: str) -> Path:
    """Return the path of the weights of a metric, fetched if they are not there yet.

    Raises:
        ValueError: If a package is missing, or the weights cannot be fetched.
    """
    network = NETWORKS[_family(name)]
    for package in network.packages:
        require(package, needed_by=f"metric {name!r}", extra="metrics")
    path = network.weights()
    if not path.is_file() and network.address is not None:
        try:
            download(network.address, path, progress=False)
        except OSError as error:
            raise ValueError(
                f"name={name!r} needs the weights '{path}', which could not be fetched ({error}): run "
                "python -m encore.cli.prefetch --metrics where there is a network, or copy the file there"
            ) from error
    return path


def _load_nisqa(path: Path, device: torch.device) -> Scorer:
    # it reads its file as tensors and plain values only, and once for all devices
    from torchmetrics.functional.audio.nisqa import non_intrusive_speech_quality_assessment as nisqa

    def score(signal: Tensor, rate: int) -> Tensor:
        # librosa computes its spectra
        return nisqa(signal.cpu(), rate)[0]

    score(torch.full((1, 8000), 0.1), 16000)
    return score


def _load_squim(path: Path, device: torch.device) -> Scorer:
    from torchaudio.models import squim_objective_base

    network: nn.Module = squim_objective_base()
    network.load_state_dict(read_safely(path))
    network.eval().to(device)
    return lambda signal, rate: torch.cat(network(signal))


def _load_distillmos(path: Path, device: torch.device) -> Scorer:
    import distillmos

    # it reads its weights as tensors and plain values only, and prints their path
    with redirect_stdout(StringIO()):
        network: nn.Module = distillmos.ConvTransformerSQAModel()  # type: ignore[no-untyped-call]
    network.eval().to(device)
    return lambda signal, rate: network(signal).flatten()


NETWORKS: dict[str, Network] = {
    "nisqa": Network(
        scales=dict.fromkeys(
            ("nisqa_mos", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness"), 0.1
        ),
        weights=lambda: Path("~/.torchmetrics/NISQA/nisqa.tar").expanduser(),
        load=_load_nisqa,
        address="https://github.com/gabrielmittag/NISQA/raw/refs/heads/master/weights/nisqa.tar",
        packages=("librosa", "requests"),
        # its windows are 40 ms apart, and it takes 1300 of them
        maximum_seconds=50.0,
    ),
    "squim": Network(
        scales={"squim_stoi": 0.01, "squim_pesq": 0.1, "squim_si_sdr": 1.0},
        weights=lambda: Path(torch.hub.get_dir(), "torchaudio", "models", _SQUIM_FILE),
        load=_load_squim,
        address=f"https://download.pytorch.org/torchaudio/models/{_SQUIM_FILE}",
        rate=16000,
        # its attention compares all 500 frames of a second with each other
        maximum_seconds=10.0,
    ),
    "distillmos": Network(
        scales={"distillmos": 0.1},
        weights=lambda: Path(str(files("distillmos") / "weights" / "distill_mos_v7.pt")),
        load=_load_distillmos,
        packages=("distillmos",),
        rate=16000,
        maximum_seconds=60.0,
    ),
}
"""Every published network; higher is better in all of their numbers."""
