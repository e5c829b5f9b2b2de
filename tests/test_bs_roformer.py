from __future__ import annotations

import sys
import warnings
from functools import partial

import pytest
import torch
from separator_toys import close, configured, noise, small
from torch import Tensor, nn

from encore.models.checkpoint import instantiate
from encore.models.costs import parameters
from encore.models.separators.bs_roformer import PUBLISHED_BANDS

pytest.importorskip("bs_roformer", reason="the extra separators is not installed")

RATES = (8000, 16000, 22050, 44100, 48000)


def built(sources: tuple[str, ...] = ("a",), sample_rate: int = 8000, channels: int = 1, **options):
    return small("BSRoFormer", sources, sample_rate, channels, **options)


def test_half_as_many_layers_have_the_published_size() -> None:
    published = configured("bs_roformer_large", ("vocals",), 44100, 2)
    with torch.device("meta"):
        assert parameters(instantiate(published | {"depth": 6})) / 1e6 == pytest.approx(72.2, rel=0.002)


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


@pytest.mark.parametrize("sources", [("a",), ("a", "b")])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_hops_give_what_the_bare_network_gives(sources: tuple[str, ...], channels: int) -> None:
    separator, mixture = built(sources, channels=channels, depth=3), noise(2, channels, 80 * 20)
    with torch.no_grad():
        bare = separator.network(mixture)
        close(separator(mixture), bare[:, None] if len(sources) == 1 else bare, relative=1e-5)


@pytest.mark.parametrize("length", [1, 100, 187, 1234])
@pytest.mark.parametrize("name", ["BSRoFormer", "BSRNN"])
def test_masks_of_one_give_the_mixture(name: str, length: int) -> None:
    """GLU halves: values from the first half, gates from the second; a real mask of 1, and no residual."""
    separator, mixture = small(name, ("a",), channels=2), noise(2, 2, length)
    if name == "BSRoFormer":
        heads = [(1, head[0][-1]) for head in separator.network.mask_estimators[0].to_freqs]
    else:
        heads = [(1, head.network[3]) for head in separator.masks]
        heads += [(0, head.network[3]) for head in separator.residuals]
    for value, last in heads:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        half = len(last.bias) // 2
        last.bias.data[:half:2] = value
        last.bias.data[half:] = 100
    with torch.no_grad():
        close(separator(mixture)[:, 0], mixture, relative=1e-5 if name == "BSRoFormer" else 1e-4)


@pytest.mark.parametrize("network", [partial(built, dropout=0.3), partial(small, "BSRNN", ("a",))])
def test_checkpointing_changes_no_gradient_drops_the_same_features_and_saves_memory(network) -> None:
    stored, found, mixture = [], [], noise(2, 1, 4000)
    for checkpointing in (False, True):
        separator = network(checkpointing=checkpointing).train()
        sizes: list[int] = []
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, n=sizes: (n.append(x.numel()), x)[1], lambda x: x
        ):
            estimates = separator(mixture)
        stored.append(sum(sizes))
        learning = [weight for weight in separator.parameters() if weight.requires_grad]
        found.append(torch.autograd.grad((estimates * noise(*estimates.shape, seed=1)).sum(), learning))
    assert stored[1] < 0.6 * stored[0]
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


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
