"""Laws of every separator in the package, on small networks of every architecture."""

from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from separator_toys import ASTEROID, MODELS, SMALL, close, configured, described, noise, small
from torch import nn

import encore.models.separators
from encore.models import load_separator
from encore.models.acceleration import accelerate, has_bfloat16_lstm
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import macs_per_second, parameters
from encore.models.separators.asteroid import ARCHITECTURES
from encore.models.separators.contract import SeparatorNetwork
from encore.models.separators.gtcrn import GTCRN
from encore.models.types import LoadedSeparator

EVERY = pytest.mark.parametrize("name", SMALL)
BRIDGES = ("ConditionedBSRNN", "ConditionedMasks")
SPECTRAL = tuple(name for name in SMALL if name not in ASTEROID)
BY_CHANNEL = (*ASTEROID, "GTCRN", "BSRNN", "BSRNN compressed", "ConditionedBSRNN")
# nothing reads these, or they are not learned; distributed training would wait for their gradients
FROZEN = {
    "ConvTasNet": r"network\.masker\.TCN\.\d\.res_conv\.",
    "BSRoFormer": r".*rotary_embed\.freqs",
    "BSRNN": r"(encoders|masks|residuals)\.(2[1-9]|3\d)\.",
    "BSRNN compressed": r"(encoders|masks|residuals)\.(2[1-9]|3\d)\.",
    "ConditionedBSRNN": r"network\.(encoders|masks|residuals)\.(2[1-9]|3\d)\.",
    "HDemucs 16000": r"network\.time_encoder\.\d\.norm1\.",
}
# at 8 kHz the branches of Hybrid Demucs meet where there is no normalization; at 48 kHz all bands are read
AT_MORE = [("HDemucs", 16000), ("BSRNN", 48000)]
STEMS = ("vocals", "drums", "bass", "other")
# model, sources, rate, channels, millions of parameters in the papers, relative tolerance
PUBLISHED = [
    ("conv_tasnet_large", ("a",), 16000, 1, 5.1, 0.05),
    ("dprnn_tasnet_large", ("a",), 16000, 1, 2.6, 0.05),
    ("sudormrf_large", ("a",), 16000, 1, 2.6, 0.05),
    ("dptnet_large", ("a",), 16000, 1, 2.7, 0.05),
    ("bsrnn_xtiny", ("a",), 8000, 1, 0.5, 0.05),
    ("bsrnn_tiny", ("a",), 48000, 1, 1.5, 0.05),
    ("bsrnn_small", ("a",), 16000, 1, 4.8, 0.05),
    ("bsrnn_medium", ("a",), 8000, 1, 16.9, 0.05),
    ("bsrnn_large", ("a",), 48000, 1, 63.1, 0.05),
    ("bsrnn_xlarge", ("a",), 16000, 1, 104.1, 0.05),
    ("bs_roformer_large", ("a",), 44100, 2, 93.4, 0.002),
    ("dttnet_large", ("a",), 44100, 2, 4.97, 0.005),
    ("dttnet_bass", ("a",), 44100, 2, 4.20, 0.005),
    ("hdemucs_large", STEMS, 44100, 2, 83.639368, 1e-9),
    ("gtcrn_tiny", ("a",), 16000, 1, 0.02367, 0.0005),
    ("spectrogram_unet_large", ("a",), 44100, 2, 9.82, 0.005),
    ("spectrogram_unet_large", STEMS, 44100, 2, 39.3, 0.005),
]
# samples of window and hop, and bins, in the papers; all bins where there is no paper
TRANSFORMS = [
    ("dttnet_large", 44100, 6144, 1024, 2048),
    ("dttnet_bass", 44100, 6144, 1024, 864),
    ("spectrogram_unet_large", 44100, 4096, 1024, 1024),
    ("dttnet_tiny", 22050, 2048, 1024, 1024),
    ("dttnet_small", 22050, 2048, 512, 1024),
    ("spectrogram_unet_tiny", 22050, 2048, 1024, 1024),
    ("spectrogram_unet_small", 22050, 2048, 512, 1024),
]
# these train on a laptop
BELOW_A_MILLION = [
    ("bs_roformer_tiny", ("a",), 16000, 1),
    ("hdemucs_tiny", ("a",), 16000, 1),
    ("dttnet_tiny", STEMS, 22050, 2),
    ("dttnet_small", STEMS, 22050, 2),
    ("spectrogram_unet_tiny", STEMS, 22050, 2),
    ("spectrogram_unet_small", STEMS, 22050, 2),
]
MISTAKES = [
    ("ConvTasNet", {"architecture": "ConvTasnet"}, "'ConvTasnet' is unknown: use ConvTasNet"),
    ("ConvTasNet", {"architecture": "get"}, "architecture='get' is unknown: "),
    ("ConvTasNet", {"architecture": "DCCRNet"}, "architecture='DCCRNet' is unknown"),
    ("ConvTasNet", {"options": {"n_filter": 4}}, "n_filter is unknown to ConvTasNet: use n_filters"),
    ("ConvTasNet", {"options": {"n_src": 2}}, "options.n_src follows from sources"),
    ("ConvTasNet", {"sources": ["a"], "options": {"mask_act": "softmax"}}, "needs two sources or more"),
    ("SuDORMRFNet", {"sources": ["a"], "options": {}}, "needs two sources or more"),
    ("BSRNN", {"sample_rate": 96000}, "sample_rate=96000 is above max_sample_rate=48000"),
    ("BSRNN", {"bands": [(4, 10.0)]}, "narrower than a bin of 50 Hz"),
    ("BSRNN", {"compression": 0.0}, "compression=0.0: give an exponent above 0, at most 1"),
    ("BSRoFormer", {"channels": 3}, "channels=3: the network takes 1 or 2"),
    ("BSRoFormer", {"depth": 0}, "depth=0: give 1 or more"),
    ("BSRoFormer", {"dim_head": 5}, "dim_head=5"),
    ("BSRoFormer", {"window_seconds": 2.0}, "window_seconds=2 is 16000 samples: give at most 8190"),
    ("BSRoFormer", {"bands": [[1, 9000.0]]}, "bands=[[1, 9000.0]]: the first holds the whole spectrum"),
    ("BSRoFormer", {"hop_seconds": 0.03}, "hop_seconds=0.03 is 240 samples: give 1 to 186"),
    ("BSRoFormer", {"bands": [[4, 5.0]]}, "narrower than a bin"),
    ("DTTNet", {"layers": 0}, "layers=0: give 1 or more"),
    ("DTTNet", {"subbands": 0}, "subbands=0: give 1 or more"),
    ("DTTNet", {"growth": 3}, "growth=3: give 4 or more"),
    ("DTTNet", {"heads": 5}, "heads=5 cannot split 16 channels, growth times scales, into two"),
    ("DTTNet", {"heads": 16}, "heads=16 cannot split 16 channels"),
    ("DTTNet", {"output": "waveform"}, "output='waveform': choose 'spectrum' or 'mask'"),
    ("DTTNet", {"compression": 0.0}, "compression=0.0: give an exponent above 0, at most 1"),
    ("DTTNet", {"highest_frequency": 5.0}, "highest_frequency=5 holds no bin: give 15.62 Hz or more"),
    ("DTTNet", {"window_seconds": 0.0}, "window_seconds=0 is 0 samples: give 0.0005 or more"),
    ("DTTNet", {"hop_seconds": 0.04}, "hop_seconds=0.04 is 320 samples: give 1 to 256"),
    ("HDemucs", {"window_seconds": 0.0}, "window_seconds=0.0: give a positive time"),
    ("HDemucs", {"window_seconds": 0.064}, "is 512 samples at 8000 Hz, but FFT lengths are 256"),
    ("HDemucs", {"depth": 3}, "depth=3 is too small for an FFT of 1024: give 4 or more"),
    ("HDemucs", {"width": 3}, "width=3 with growth=2: give a width of 4 or more"),
    ("HDemucs", {"growth": 0}, "growth=0: give a width of 4 or more, a growth of 1 or more"),
    ("HDemucs", {"width": 8, "growth": 1}, "width=8 with growth=1 gives layer 5 8 channels"),
    ("SpectrogramUNet", {"filters": []}, "filters=[]: give one positive number of channels per layer down"),
    ("SpectrogramUNet", {"filters": [4, 0]}, "filters=[4, 0]: give one positive number"),
    ("SpectrogramUNet", {"features": 0}, "features=0: give 1 or more"),
    ("SpectrogramUNet", {"masks": "hard"}, "masks='hard': choose 'ratio' or 'softmax'"),
    ("SpectrogramUNet", {"extension": "copy"}, "extension='copy': choose 'average' or 'zeros'"),
    ("SpectrogramUNet", {"compression": 2.0}, "compression=2.0: give an exponent above 0, at most 1"),
    ("SpectrogramUNet", {"dropout": 1.0}, "dropout=1.0: give a rate of at least 0, below 1"),
]
PLAIN = sorted(path.stem for path in MODELS.glob("*.yaml") if not path.stem.startswith(("prior_", "bridge_")))


def test_every_separator_of_the_package_is_tested_here() -> None:
    separators = {
        f"separators.{module.name}.{name}"
        for module in pkgutil.iter_modules(encore.models.separators.__path__)
        if module.name != "contract"
        for name, found in vars(import_module(f"encore.models.separators.{module.name}")).items()
        if inspect.isclass(found)
        and found.__module__.endswith(module.name)
        and issubclass(found, SeparatorNetwork)
    }
    assert {node["_target_"] for node in SMALL.values()} == {
        *separators,
        "denoisers.bridge_separator.BridgeSeparator",
    }
    assert ASTEROID.keys() == set(ARCHITECTURES)


@EVERY
@torch.no_grad()
def test_any_length_comes_out_as_it_went_in_and_depends_on_the_mixture(name: str) -> None:
    separator = small(name)
    assert isinstance(separator, LoadedSeparator)
    for length in (1, 2, 33, 127, 128, 129, 241, 384, 513, 997, 4001):
        mixture = noise(2, 1, length)
        estimates = separator(mixture)
        assert estimates.shape == (2, 2, 1, length)
        assert estimates.isfinite().all()
        assert torch.equal(estimates, separator(mixture))
        if length > 2:
            size = 1e-4 * float(estimates.norm())
            # the last samples too, which networks without padding leave silent
            assert (estimates[..., -1] != 0).all()
            assert (separator(mixture.flip(-1)) - estimates).norm() > size > 0
            assert (estimates[:, 0] - estimates[:, 1]).norm() > size


@pytest.mark.parametrize(("name", "rate"), [*((name, 8000) for name in SMALL), *AT_MORE])
def test_every_sample_of_the_mixture_counts_and_every_weight_learns(name: str, rate: int) -> None:
    separator = small(name, sample_rate=rate, channels=2).train()
    name = name if rate == 8000 else f"{name} {rate}"
    for head in [part for part in separator.modules() if hasattr(part, "heads") and hasattr(part, "widths")]:
        for layer in head.heads:
            nn.init.normal_(layer.weight, std=0.3)  # of the time, which starts as nothing
    mixture = noise(2, 2, 3000).requires_grad_()
    (separator(mixture) * noise(2, 2, 2, 3000, seed=1)).sum().backward()
    assert (mixture.grad != 0).float().mean() > 0.999
    fixed = {key for key, weight in separator.named_parameters() if not weight.requires_grad}
    idle = {
        key for key, weight in separator.named_parameters() if weight.grad is None or not weight.grad.any()
    }
    assert fixed == idle
    assert fixed == {key for key in idle if re.match(FROZEN.get(name, "(?!)"), key)}
    assert bool(fixed) == (name in FROZEN)


@EVERY
@torch.no_grad()
def test_batch_mates_do_not_matter_even_in_training(name: str) -> None:
    # GTCRN normalizes by batch while it is trained, as published
    separator, mixture = small(name).train(name != "GTCRN"), noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    together = separator(mixture)
    for item in range(2):
        close(together[item], separator(mixture[item : item + 1])[0], 1e-5 if name in ASTEROID else 1e-4)


@EVERY
@torch.no_grad()
def test_channels_are_separated_one_by_one_or_together(name: str) -> None:
    stereo, mono = small(name, channels=2), small(name)
    assert (stereo.sources, stereo.sample_rate, stereo.channels) == (("a", "b"), 8000, 2)
    mixture = noise(2, 2, 1500)
    estimates = stereo(mixture)
    assert estimates.shape == (2, 2, 2, 1500)
    if name in BY_CHANNEL and name not in BRIDGES:
        mono.load_state_dict(stereo.state_dict())
        for channel in range(2):
            close(estimates[:, :, channel], mono(mixture[:, channel : channel + 1])[:, :, 0], 1e-5)
    elif name not in BRIDGES:
        other = torch.stack((mixture[:, 0], noise(2, 1500, seed=3)), dim=1)
        assert not torch.allclose(stereo(other)[:, :, 0], estimates[:, :, 0], rtol=1e-3)


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_the_level_goes_through(name: str) -> None:
    separator, mixture = small(name), noise(2, 1, 4000)
    estimates = separator(mixture)
    for factor in (1e-3, 1e3):
        close(
            separator(factor * mixture), factor * estimates, 2e-3 if name in (*BRIDGES, "HDemucs") else 1e-4
        )


@EVERY
def test_silence_gives_silence_and_finite_gradients(name: str) -> None:
    separator, mixture = small(name).train(), torch.zeros(2, 1, 1000, requires_grad=True)
    estimates = separator(mixture)
    assert estimates.isfinite().all()
    assert name in ASTEROID or estimates.abs().max() < 1e-6
    assert not estimates.any() or not name.startswith(("BSRoFormer", "SpectrogramUNet"))
    (estimates - 1).square().sum().backward()
    learning = [weight.grad for weight in separator.parameters() if weight.requires_grad]
    assert all(grad is None or grad.isfinite().all() for grad in (*learning, mixture.grad))


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_every_rate_will_do(name: str, rate: int) -> None:
    channels = 2 if name == "BSRoFormer" else 3
    separator, mixture = small(name, sample_rate=rate, channels=channels), noise(1, channels, 3001)
    estimates = separator(mixture)
    assert separator.sample_rate == rate
    assert estimates.shape == (1, 2, channels, 3001)
    close(separator(2 * mixture), 2 * estimates, 2e-3)


@EVERY
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    config = described(name, channels=2)
    separator, mixture = instantiate(config).eval(), noise(1, 2, 3000)
    assert not [key for key in separator.state_dict() if "window" in key]
    save_separator(tmp_path / "saved.safetensors", separator, config)
    # matrix products round differently where a file's weights lie in memory
    loaded = load_separator(tmp_path / "saved.safetensors")
    close(loaded(mixture), separator(mixture), 1e-5)
    state = loaded.state_dict()
    assert all(torch.equal(state.pop(key), tensor) for key, tensor in separator.state_dict().items())
    assert not state


@EVERY
def test_something_is_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the transforms, where a network has some."""
    compiled: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda method, **_: compiled.append(method.__name__) or method)
    accelerate(small(name), compiled=True)
    assert compiled == ["forward" if name in (*ASTEROID, "HDemucs") else "_predict"]


@torch.no_grad()
def test_a_causal_network_uses_nothing_later() -> None:
    """But for the window, whose later half an estimate needs."""
    separator, mixture = GTCRN(["speech"], 16000, causal=True).eval(), noise(1, 1, 16000)
    changed = mixture.clone()
    changed[..., 8000:] = noise(1, 1, 8000, seed=1)
    before, after = separator(mixture)[..., :7488], separator(changed)[..., :7488]
    close(after, before, 1e-6)
    offline = GTCRN(["speech"], 16000, causal=False).eval()
    assert not torch.allclose(offline(mixture)[..., :7488], offline(changed)[..., :7488], atol=1e-3)


@pytest.mark.parametrize("name", SPECTRAL)
def test_it_runs_in_bfloat16_and_trains(name: str) -> None:
    separator, mixture = small(name), noise(1, 1, 4000)
    if any(isinstance(part, nn.LSTM) for part in separator.modules()) and not has_bfloat16_lstm():
        pytest.skip("no LSTM in bfloat16 on this CPU")
    expected = separator(mixture).detach()
    accelerate(separator, precision="bf16")
    estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    assert 1e-6 < (estimates - expected).norm() / expected.norm() < (0.02 if name == "BSRNN" else 0.05)
    estimates.square().sum().backward()
    learning = [weight.grad for weight in separator.parameters() if weight.grad is not None]
    assert learning
    assert all(grad.isfinite().all() for grad in learning)


@pytest.mark.parametrize("name", ["BSRoFormer", "SpectrogramUNet"])
@torch.no_grad()
def test_dropout_is_for_training_only(name: str) -> None:
    separator, mixture = small(name, dropout=0.5), noise(1, 1, 2000)
    assert torch.equal(separator(mixture), separator(mixture))
    separator.train()
    assert not torch.allclose(separator(mixture), separator(mixture))


@EVERY
def test_it_learns(name: str) -> None:
    """Two tones, each a source of its own."""
    separator, time = small(name, ("low", "high")).train(), torch.arange(2000) / 8000
    tones = 0.1 * torch.stack([torch.sin(2 * torch.pi * f * time) for f in (440, 1230)])[None, :, None]
    optimizer, errors = torch.optim.Adam(separator.parameters(), 1e-2), []
    for _ in range(30):
        error = (separator(tones.sum(1)) - tones).square().sum() / tones.square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    slow = name in ("DPTNet", "LSTMTasNet", "DTTNet", "HDemucs")
    assert errors[-1] < (0.3 if slow else 0.05) * errors[0]


@EVERY
@pytest.mark.parametrize("shape", [(2, 100), (1, 3, 100), (1, 2, 0)])
def test_wrong_mixtures_are_named(name: str, shape: tuple[int, ...]) -> None:
    separator = small(name, channels=2)
    if getattr(separator, "any_channels", False) and shape == (1, 3, 100):
        assert separator(noise(*shape)).shape == (1, 2, 3, 100)
        return
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with ") as error:
        separator(torch.zeros(shape))
    assert "\n" not in str(error.value)


@EVERY
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"sources": "speech"}, "sources='speech'"),
        ({"sources": []}, "sources=[]"),
        ({"sources": ["a", "a"]}, "sources=['a', 'a']"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_wrong_descriptions_are_named(name: str, audio: dict, message: str) -> None:
    config = described(name)
    (config if name not in BRIDGES else config["network"]).update(audio)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        instantiate(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES)
def test_wrong_options_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        small(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("model", "sources", "rate", "channels", "millions", "tolerance"), PUBLISHED)
def test_published_sizes(model, sources, rate: int, channels: int, millions: float, tolerance: float) -> None:
    with torch.device("meta"):
        separator = instantiate(configured(model, sources, rate, channels))
    assert parameters(separator) / 1e6 == pytest.approx(millions, rel=tolerance)


@pytest.mark.parametrize(("model", "rate", "window", "hop", "bins"), TRANSFORMS)
def test_published_transforms(model: str, rate: int, window: int, hop: int, bins: int) -> None:
    with torch.device("meta"):
        separator = instantiate(configured(model, ("a",), rate, 2))
    transform = separator.transform
    assert (transform.window_length, transform.hop_length, transform.bins) == (window, hop, bins)


@pytest.mark.parametrize(("model", "sources", "rate", "channels"), BELOW_A_MILLION)
def test_the_smallest_are_below_a_million(model: str, sources: tuple, rate: int, channels: int) -> None:
    with torch.device("meta"):
        assert parameters(instantiate(configured(model, sources, rate, channels))) < 1e6


@pytest.mark.parametrize("model", PLAIN)
def test_configurations_build_what_they_state(model: str) -> None:
    """Hydra builds what a checkpoint builds, with the parameters and the cost of the first line."""
    header = (MODELS / f"{model}.yaml").read_text().splitlines()[0]
    config = configured(model)
    with torch.device("meta"):
        separator, same = instantiate(config), hydra.utils.instantiate(OmegaConf.create(config))
    assert (separator.sources, separator.sample_rate, separator.channels) == (("speech",), 16000, 1)
    shapes = [{key: weight.shape for key, weight in x.state_dict().items()} for x in (separator, same)]
    assert shapes[0] == shapes[1]
    millions = float(re.search(r"([\d.]+) M parameters", header)[1])
    assert parameters(separator) / 1e6 == pytest.approx(millions, abs=0.005)
    stated = re.search(r"([\d.]+) G multiply-accumulates", header)
    if stated and "medium" not in model:
        assert macs_per_second(separator, seconds=4.0) / 1e9 == pytest.approx(float(stated[1]), abs=0.005)
