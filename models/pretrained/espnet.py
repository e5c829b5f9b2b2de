"""ESPnet's speech enhancement and separation."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import check_file, tensors_only
from encore.models.pretrained.downloads import fetch
from encore.models.separators.contract import AdaptedSeparator, default_names
from encore.models.weights import load_weights, read_state_dict


def open_espnet(
    tag: str, *, config: Path | None = None, weights: Path | None = None, sample_rate: int | None = None
) -> nn.Module:
    """Open a model of ESPnet's enhancement task.

    The weights are read without running code from their file, which ESPnet itself does.

    Args:
        tag: Name of a model for ``espnet_model_zoo``; empty where files are given.
        config: The model's training configuration, a YAML file.
        weights: Its weights.
        sample_rate: Rate in Hz of the model. Only networks for many rates say it in their configuration.

    Returns:
        A separator of one channel without gradients; source ``speech`` for one, ``speaker1``, ... else.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model cannot be fetched or built, or its rate is not known.

    Source: C. Li et al., "ESPnet-SE: end-to-end speech enhancement and separation toolkit", 2021.
    """
    if not config and not weights:
        config, weights = _downloaded(tag)
    if config is None or weights is None:
        raise ValueError("espnet: give ?config=config.yaml&weights=model.pth, both, or the tag of a model")
    check_file(config)
    state = read_state_dict(weights)
    enhancement = import_module("espnet2.bin.enh_inference")
    try:
        with tensors_only():
            speech = enhancement.SeparateSpeech(train_config=str(config), model_file=None)
    except Exception as error:  # of any class: a configuration builds anything that it names
        raise ValueError(f"espnet cannot build '{config}': {one_line(error)}") from error
    load_weights(speech.enh_model, state, weights)
    rate = sample_rate or _rate(speech)
    if rate is None:
        raise ValueError(
            f"espnet model '{tag or config}' does not say its sampling rate: add &sample_rate=8000"
        )
    return EspnetSeparator(speech, rate)


class EspnetSeparator(AdaptedSeparator):
    """ESPnet's ``SeparateSpeech`` on tensors; it returns arrays, so no gradients go through it.

    Args:
        speech: A callable with ``enh_model``, ``num_spk`` and ``device``: arrays ``(batch, time)``, one for
            each speaker, from ``(batch, time)`` and the rate ``fs``.
        sample_rate: Rate in Hz.
    """

    def __init__(self, speech: Any, sample_rate: int) -> None:
        super().__init__(default_names(int(speech.num_spk)), sample_rate, 1, shortest=_window(speech))
        # registered, so that it moves with this module
        self.network = speech.enh_model
        self.speech = speech

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate on the device of the mixture."""
        self.speech.device = str(mixture.device)
        waves = self.speech(mixture[:, 0], fs=self.sample_rate)
        return self.with_all_axes(torch.stack([torch.as_tensor(wave) for wave in waves], dim=1).to(mixture))


def _downloaded(tag: str) -> tuple[Path, Path]:
    zoo = import_module("espnet_model_zoo.downloader")
    found: dict[str, Any] = {}

    def download() -> str:
        found.update(zoo.ModelDownloader().download_and_unpack(tag))
        return str(found["model_file"])

    weights = fetch(f"espnet model '{tag}'", download)
    return Path(found["train_config"]), weights


def _window(speech: Any) -> int:
    """Return the samples of one frame, of the encoder or of a separator with its own transform."""
    encoder = getattr(speech.enh_model, "encoder", None)
    stft = getattr(encoder, "stft", None)
    frames = getattr(encoder, "kernel_size", 0), getattr(stft, "n_fft", 0)
    return max(1, *frames, _option(speech, "separator_conf", "n_fft") or 0)


def _rate(speech: Any) -> int | None:
    """Return the rate of a network for many rates; in other configurations ESPnet's rate means nothing."""
    many = getattr(speech, "sfi_processing", False)
    return int(_option(speech, "encoder_conf", "default_fs") or 0) or None if many else None


def _option(speech: Any, part: str, name: str) -> Any:
    options = getattr(speech.enh_train_args, part, None)
    return options.get(name) if isinstance(options, Mapping) else None
