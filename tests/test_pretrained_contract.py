from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchaudio
from pretrained_toys import FAMILIES, Opened, Trap, fake_espnet, tiny_torchaudio
from torch import Generator, Tensor

from encore.inference import GridSearch, refine
from encore.metrics import get_metric
from encore.models import load_separator
from encore.models.pretrained.registry import LOADERS

pytestmark = pytest.mark.filterwarnings("ignore")
LENGTHS = (1, 2, 701, 3333)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    known: dict[str, Opened] = {}

    def make(family: str) -> Opened:
        if family not in known:
            known[family] = FAMILIES[family](tmp_path_factory.mktemp(family))
        return known[family]

    return make


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_espnet(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torchaudio.pipelines.HDEMUCS_HIGH_MUSDB, "_model_factory_func", tiny_torchaudio)


def noise(channels: int, length: int, seed: int = 0, batch: int = 2) -> Tensor:
    return 0.1 * torch.randn(batch, channels, length, generator=Generator().manual_seed(seed)) + 0.01


def test_every_loader_is_tried() -> None:
    schemes = {family.replace("mel_", "bs_") for family in FAMILIES}
    assert schemes == LOADERS.keys() - {"hf"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loader_gives_what_its_project_gives(family: str, made: Callable[[str], Opened]) -> None:
    separator = load_separator(made(family).uri)
    mixture = noise(separator.channels, 3200)
    with torch.no_grad():
        expected = made(family).own(mixture)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(separator(mixture), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_length_comes_back_and_items_are_independent(family: str, made: Callable[[str], Opened]) -> None:
    separator = load_separator(made(family).uri)
    assert not any(parameter.requires_grad for parameter in separator.parameters())  # type: ignore[attr-defined]
    for length in LENGTHS:
        mixture = noise(separator.channels, length)
        estimates = separator(mixture)
        assert estimates.shape == (2, len(separator.sources), separator.channels, length)
        assert bool(torch.isfinite(estimates).all())
        # a loud neighbour must not change an item, beyond the order of sums
        louder = torch.cat([mixture[:1], 20 * noise(separator.channels, length, seed=1)[1:]])
        torch.testing.assert_close(separator(louder)[:1], estimates[:1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(separator(mixture[1:]), estimates[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"file", "weights"}))
def test_silence_stays_finite_and_wrong_shapes_are_named(family: str, made: Callable[[str], Opened]) -> None:
    separator = load_separator(made(family).uri)
    assert bool(torch.isfinite(separator(torch.zeros(1, separator.channels, 800))).all())
    for shape in ((1, separator.channels + 1, 800), (separator.channels, 800), (1, separator.channels, 0)):
        with pytest.raises(ValueError, match="mixture has shape"):
            separator(torch.zeros(shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_go_through_where_the_network_lets_them(family: str, made: Callable[[str], Opened]) -> None:
    separator = load_separator(made(family).uri)
    mixture = noise(separator.channels, 3200).requires_grad_()
    estimates = separator(mixture)
    assert estimates.requires_grad == made(family).differentiable
    if made(family).differentiable:
        (gradient,) = torch.autograd.grad(estimates.square().sum(), mixture)
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pretrained_separator_is_refined_like_any(family: str, made: Callable[[str], Opened]) -> None:
    separator = load_separator(made(family).uri)
    mixture = noise(separator.channels, 3200)
    references = noise(separator.channels, 3200, seed=2)[:, None].expand(-1, len(separator.sources), -1, -1)
    quality = get_metric("si_sdr", sample_rate=separator.sample_rate).bind(references=references)
    result = refine(separator, mixture, quality, GridSearch(steps=2, candidates=3))
    torch.testing.assert_close(result.one_step, separator(mixture), rtol=1e-4, atol=1e-5)
    assert bool((result.scores.diff(dim=0) >= 0).all())
    assert int(result.evaluations.min()) >= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_loader_takes_the_common_options(family: str, made: Callable[[str], Opened]) -> None:
    uri = made(family).uri
    plain = load_separator(uri)
    joint = "&" if "?" in uri else "?"
    names = [f"x{index}" for index in range(len(plain.sources))]
    renamed = load_separator(f"{uri}{joint}sources={','.join(names)}") if "sources=" not in uri else plain
    levelled = load_separator(f"{uri}{joint}level=least_squares")
    assert renamed is plain or renamed.sources == tuple(names)
    mixture = noise(plain.channels, 3200)
    estimates, scaled = plain(mixture), levelled(mixture)
    gain = (scaled * estimates).sum((1, 2, 3)) / estimates.square().sum((1, 2, 3))
    torch.testing.assert_close(scaled, gain[:, None, None, None] * estimates, rtol=1e-4, atol=1e-6)
    # the remainder of a least squares fit is orthogonal to what was fitted
    total = scaled.sum(1)
    inner = ((mixture - total) * total).sum((1, 2))
    assert float((inner / total.square().sum((1, 2))).abs().max()) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_with_code_in_it_is_refused(family: str, tmp_path: Path) -> None:
    opened = FAMILIES[family](tmp_path)
    marker = tmp_path / "marker"
    for path in tmp_path.iterdir():
        if path.suffix in (".pt", ".pth", ".th", ".ckpt", ".pt2", ".onnx", ".safetensors"):
            torch.save({"state_dict": {}, "trap": Trap(marker)}, path)
    with pytest.raises(ValueError, match=r"is not a|is refused") as error:
        load_separator(opened.uri)
    assert "\n" not in str(error.value)
    assert not marker.exists()
