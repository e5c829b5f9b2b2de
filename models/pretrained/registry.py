"""The table of doors: which scheme opens what. Nothing of another project is imported to read it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from torch import nn


@dataclass(frozen=True, slots=True)
class Door:
    """How separators of one family are named and opened.

    Attributes:
        opener: ``module:function``; called with what follows the scheme, and with options as keywords.
        summary: What it opens, in one line.
        example: A URI as a user writes it.
        package: Name under which Python imports what it needs.
        install: What a user types to have that package.
    """

    opener: str
    summary: str
    example: str
    package: str = "torch"
    install: str = ""

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there; the package is not imported to find out."""
        return self.package in sys.modules or find_spec(self.package) is not None

    def function(self) -> Callable[..., nn.Module]:
        """The opener, imported now."""
        module, _, name = self.opener.partition(":")
        found: Callable[..., nn.Module] = getattr(import_module(module), name)
        return found


DOORS: dict[str, Door] = {
    "file": Door(
        "encore.models.pretrained.ours:open_file",
        "checkpoints of this project; the scheme may be left out",
        "outputs/run/checkpoints/last.ckpt",
    ),
    "hf": Door(
        "encore.models.pretrained.hugging_face:open_hugging_face",
        "checkpoints of this project on the Hugging Face hub",
        "hf:somebody/denoiser@v1/denoiser.safetensors",
        "huggingface_hub",
        "pip install huggingface_hub",
    ),
    "joined": Door(
        "encore.models.pretrained.per_source:open_joined",
        "several separators of different sources as one, such as a network per stem",
        "joined:outputs/vocals/checkpoints/last.ckpt,outputs/drums/checkpoints/last.ckpt",
    ),
    "weights": Door(
        "encore.models.pretrained.plain_weights:open_weights",
        "a bare state dictionary for a network of configs/model",
        "weights:best.pt?model=conv_tasnet_small&sources=speech&sample_rate=16000&channels=1",
    ),
    "asteroid": Door(
        "encore.models.pretrained.asteroid:open_asteroid",
        "asteroid's models, from the hub or a file of theirs",
        "asteroid:JorisCos/ConvTasNet_Libri2Mix_sepnoisy_16k?level=least_squares",
        "asteroid",
        "pip install asteroid==0.7.0",
    ),
    "torchaudio": Door(
        "encore.models.pretrained.torchaudio:open_torchaudio",
        "torchaudio's bundles",
        "torchaudio:HDEMUCS_HIGH_MUSDB_PLUS",
        "torchaudio",
        "pip install torchaudio",
    ),
    "demucs": Door(
        "encore.models.pretrained.demucs:open_demucs",
        "Demucs, single models and bags, by name or from a folder or file",
        "demucs:htdemucs",
        "demucs",
        "pip install 'encore-separation[separators]'",
    ),
    "bs_roformer": Door(
        "encore.models.pretrained.bs_roformer:open_bs_roformer",
        "BS-RoFormer and Mel-Band RoFormer checkpoints with their YAML",
        "bs_roformer:model.ckpt?config=model.yaml",
        "bs_roformer",
        "pip install 'encore-separation[separators]'",
    ),
    "espnet": Door(
        "encore.models.pretrained.espnet:open_espnet",
        "ESPnet's enhancement and separation models, by tag or from files",
        "espnet:?config=config.yaml&weights=valid.loss.best.pth&sample_rate=8000",
        "espnet2",
        "pip install espnet espnet_model_zoo",
    ),
    "torchscript": Door(
        "encore.models.pretrained.torchscript:open_torchscript",
        "TorchScript files, (b, c, t) to (b, s, c, t) and the like",
        "torchscript:model.pt?sources=speech,noise&sample_rate=16000&channels=1",
    ),
    "exported": Door(
        "encore.models.pretrained.exported:open_exported",
        "programs of torch.export",
        "exported:model.pt2?sources=speech&sample_rate=16000&channels=1",
    ),
    "onnx": Door(
        "encore.models.pretrained.onnx:open_onnx",
        "ONNX graphs, run by onnxruntime",
        "onnx:model.onnx?sources=speech&sample_rate=16000&channels=1",
        "onnxruntime",
        "pip install onnxruntime",
    ),
}
"""Every door by its scheme."""


def describe_doors() -> str:
    """The table for people: scheme, what it opens, an example, and what is not installed."""
    lines = []
    for scheme, door in DOORS.items():
        needs = "" if door.installed else f" [not installed: {door.install}]"
        lines += [f"{scheme + ':':<13}{door.summary}{needs}", f"{'':<13}{door.example}"]
    return "\n".join(lines)
