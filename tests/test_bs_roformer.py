from __future__ import annotations

import re
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from separator_toys import check_stated_costs, close, configured, noise
from torch import Tensor, nn

from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import parameters
from encore.models.separators.bs_roformer import PUBLISHED_BANDS, BSRoFormer
from encore.models.separators.bsrnn import BSRNN
from encore.models.types import LoadedSeparator

pytest.importorskip("bs_roformer", reason="the extra separators is not installed")

SIZES = ("tiny", "small", "medium", "large")
RATES = (8000, 16000, 22050, 44100, 48000)


def built(sources: tuple[str, ...] = ("speech",), sample_rate: int = 8000, channels: int = 1, **options):
    torch.manual_seed(0)
    sizes = {"dim": 8, "depth": 2, "heads": 2, "dim_head": 4, "bands": [(10, 100.0), (6, 500.0)]}
    return BSRoFormer(sources, sample_rate, channels, **sizes | options).eval()


@pytest.mark.parametrize("size", SIZES)
def test_stated_sizes_and_costs(size: str) -> None:
    check_stated_costs(f"bs_roformer_{size}", counted=size in ("tiny", "large"))


def test_published_sizes() -> None:
    """72.2 M for six layers, 93.4 M for twelve, of one source of stereo."""
    published = configured("bs_roformer_large", ("vocals",), 44100, 2)
    with torch.device("meta"):
        assert parameters(instantiate(published)) / 1e6 == pytest.approx(93.4, rel=0.002)
        assert parameters(instantiate(published | {"depth": 6})) / 1e6 == pytest.approx(72.2, rel=0.002)
        assert parameters(instantiate(configured("bs_roformer_tiny"))) < 1e6


def test_bands_at_44_1_khz_are_the_published_62() -> None:
    with torch.device("meta"):
        separator = built(sample_rate=44100, bands=PUBLISHED_BANDS)
    assert separator.band_bins == [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]


@pytest.mark.parametrize("sample_rate", RATES)
def test_bands_stay_where_they_are_in_hz_and_fill_the_spectrum(sample_rate: int) -> None:
    with torch.device("meta"):
        separator = built(sample_rate=sample_rate, bands=PUBLISHED_BANDS)
    assert sum(separator.band_bins) == separator.transform.window_length // 2 + 1
    hertz = sample_rate / separator.transform.window_length
    edges = torch.tensor(separator.band_bins[:-1]).cumsum(0) * hertz
    published = torch.tensor([width for count, width in PUBLISHED_BANDS for _ in range(count)]).cumsum(0)
    torch.testing.assert_close(edges, published[: len(edges)], rtol=0.005, atol=0)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_contract_at_every_rate(sample_rate: int, channels: int) -> None:
    separator = built(("a", "b"), sample_rate, channels)
    assert isinstance(separator, LoadedSeparator)
    said = separator.sources, separator.sample_rate, separator.channels
    assert said == (("a", "b"), sample_rate, channels)
    with torch.no_grad():
        assert separator(noise(2, channels, 3001)).shape == (2, 2, channels, 3001)


@pytest.mark.parametrize("hop_seconds", [0.01, 0.016])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 240, 241, 8000])
def test_any_length_comes_out_as_it_went_in(length: int, hop_seconds: float) -> None:
    with torch.no_grad():
        estimates = built(window_seconds=0.032, hop_seconds=hop_seconds)(noise(2, 1, length))
    assert estimates.shape == (2, 1, 1, length)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("sources", [("a",), ("a", "b")])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_hops_give_what_the_bare_network_gives(sources: tuple[str, ...], channels: int) -> None:
    separator, mixture = built(sources, channels=channels, depth=3), noise(2, channels, 80 * 20)
    with torch.no_grad():
        bare = separator.network(mixture)
        close(separator(mixture), bare[:, None] if len(sources) == 1 else bare, relative=1e-5)


@pytest.mark.parametrize("length", [1, 100, 187, 1000])
def test_masks_of_one_give_the_mixture(length: int) -> None:
    """GLU halves: values from the first half, gates from the second."""
    separator, mixture = built(channels=2), noise(2, 2, length)
    for head in separator.network.mask_estimators[0].to_freqs:
        last = head[0][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        half = len(last.bias) // 2
        last.bias.data[:half:2] = 1
        last.bias.data[half:] = 100
    with torch.no_grad():
        close(separator(mixture)[:, 0], mixture, relative=1e-5)


def test_batch_mates_do_not_matter() -> None:
    separator, mixture = built(), noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        for index in range(2):
            close(together[index], separator(mixture[index : index + 1])[0])


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_goes_through(factor: float) -> None:
    separator, mixture = built(), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * mixture), factor * separator(mixture))


def test_silence_gives_silence_and_finite_gradients() -> None:
    separator, mixture = built(("a", "b")).train(), torch.zeros(2, 1, 1000, requires_grad=True)
    estimates = separator(mixture)
    assert not estimates.any()
    estimates.square().sum().backward()
    learning = [p for p in separator.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() for p in (*learning, mixture))


def test_every_trainable_parameter_learns_and_only_frequencies_of_positions_are_fixed() -> None:
    separator = built(("a", "b"), channels=2).train()
    (separator(noise(2, 2, 3000)) * noise(2, 2, 2, 3000, seed=1)).sum().backward()
    trainable = {name: p for name, p in separator.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.any()] == []
    fixed = [name for name, p in separator.named_parameters() if not p.requires_grad]
    assert len(fixed) == 2
    assert all(name.endswith("rotary_embed.freqs") for name in fixed)


def test_it_runs_in_bfloat16_and_trains() -> None:
    separator, mixture = built(), noise(1, 1, 4000)
    with torch.no_grad():
        expected = separator(mixture)
    accelerate(separator, precision="bf16")
    estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    assert 1e-6 < (estimates - expected).norm() / expected.norm() < 0.05
    estimates.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in separator.parameters() if p.requires_grad)


def gradients(separator: nn.Module, mixture: Tensor) -> list[Tensor]:
    learning = [p for p in separator.parameters() if p.requires_grad]
    weights = noise(*separator(mixture).shape, seed=1)
    return list(torch.autograd.grad((separator(mixture) * weights).sum(), learning))


@pytest.mark.parametrize("network", [built, partial(BSRNN, ["a"], 8000, 1, features=8, layers=2)])
def test_checkpointing_changes_no_gradient_and_saves_memory(network) -> None:
    stored, found = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        separator = network(checkpointing=checkpointing).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, n=sizes: (n.append(x.numel()), x)[1], lambda x: x
        ):
            separator(noise(2, 1, 4000))
        stored.append(sum(sizes))
        found.append(gradients(separator, noise(2, 1, 4000)))
    assert stored[1] < 0.6 * stored[0]
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_checkpointing_drops_the_same_features_again() -> None:
    separator, mixture, found = built(dropout=0.3).train(), noise(2, 1, 4000), []
    for separator.checkpointing in (False, True):
        torch.manual_seed(3)
        learning = [p for p in separator.parameters() if p.requires_grad]
        found.append(torch.autograd.grad(separator(mixture).square().sum(), learning))
    for plain, again in zip(*found, strict=True):
        close(again, plain, relative=1e-5)


def test_dropout_is_for_training_only() -> None:
    separator, mixture = built(dropout=0.5), noise(1, 1, 2000)
    with torch.no_grad():
        assert torch.equal(separator(mixture), separator(mixture))
        separator.train()
        assert not torch.allclose(separator(mixture), separator(mixture))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    sizes = {"dim": 8, "depth": 2, "heads": 2, "dim_head": 4, "bands": [[10, 100.0], [6, 500.0]]}
    options = {"sources": ["a", "b"], "sample_rate": 8000, "channels": 2, **sizes}
    target = {"_target_": "encore.models.separators.bs_roformer.BSRoFormer", **options}
    separator, mixture = BSRoFormer(**options).eval(), noise(1, 2, 3000)
    save_separator(tmp_path / "saved.safetensors", separator, target)
    with torch.no_grad():
        # matrix products round differently where a file's weights lie in memory
        close(load_separator(tmp_path / "saved.safetensors")(mixture), separator(mixture), relative=1e-5)


def test_attention_is_one_call_of_torch_per_axis_and_layer(monkeypatch) -> None:
    """The package's own forms all weights in memory."""
    separator, shapes = built(depth=3), []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(queries: Tensor, *others: Tensor, **options) -> Tensor:
        shapes.append(tuple(queries.shape))
        return attention(queries, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.no_grad():
        separator(noise(2, 1, 80 * 20))
    bands, frames = len(separator.band_bins), 21
    assert shapes == 3 * [(2 * bands, 2, frames, 4), (2 * frames, 2, bands, 4)]


def test_it_learns() -> None:
    """Harmonic tones in white noise."""
    separator, time = built(dim=16, dim_head=8).train(), torch.arange(4000) / 8000
    tones = [sum(torch.sin(2 * torch.pi * f * k * time) / k for k in range(1, 6)) for f in (110, 170)]
    clean = 0.1 * torch.stack(tones)[:, None]
    mixture = clean + noise(2, 1, 4000)
    optimizer, levels = torch.optim.Adam(separator.parameters(), 3e-3), []
    for _ in range(15):
        error = (separator(mixture)[:, 0] - clean).square().sum() / clean.square().sum()
        optimizer.zero_grad()
        error.log().backward()
        optimizer.step()
        levels.append(10 * error.log10().item())
    assert levels[-1] < levels[0] - 5


def test_nothing_warns(capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built().train()(noise(1, 1, 2000)).sum().backward()
    assert capsys.readouterr() == ("", "")


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bs_roformer", None)
    with pytest.raises(ValueError, match=r'pip install "encore-separation\[pretrained\]"') as error:
        built()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "sources=[]"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 3}, "channels=3: the network takes 1 or 2"),
        ({"depth": 0}, "depth=0: give 1 or more"),
        ({"dim_head": 5}, "dim_head=5"),
        ({"window_seconds": 2.0}, "window_seconds=2 is 16000 samples: give at most 8190"),
        ({"bands": [[1, 9000.0]]}, "bands=[[1, 9000.0]]: the first holds the whole spectrum"),
        ({"hop_seconds": 0.03}, "hop_seconds=0.03 is 240 samples: give 1 to 186"),
        ({"bands": [[4, 5.0]]}, "narrower than a bin"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    complete = {"sources": ["a"], "sample_rate": 8000, "channels": 1, "dim": 8, "depth": 1} | options
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        BSRoFormer(**complete)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 100), (1, 1, 0)])
def test_wrong_mixtures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with 1 channel"):
        built()(torch.zeros(shape))
