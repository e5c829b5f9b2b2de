"""What every loader promises, on a small checkpoint of each project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio
from pretrained_toys import FAMILIES, Opened, Trap, fake_espnet, tiny_torchaudio
from torch import Generator, Tensor

from encore.inference import GridSearch, refine
from encore.metrics import get_metric
from encore.models import LoadedSeparator, load_separator
from encore.models.pretrained.registry import LOADERS

pytestmark = pytest.mark.filterwarnings("ignore")
Case = tuple[Opened, LoadedSeparator]


@pytest.fixture(scope="module", autouse=True)
def small_and_offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        fake_espnet(patch)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(torchaudio.pipelines.HDEMUCS_HIGH_MUSDB, "_model_factory_func", tiny_torchaudio)
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    opened = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return opened, load_separator(opened.uri)


def noise(separator: LoadedSeparator, length: int = 3200, seed: int = 0) -> Tensor:
    shape = (2, separator.channels, length)
    return 0.1 * torch.randn(shape, generator=Generator().manual_seed(seed)) + 0.01


def test_every_loader_is_tried() -> None:
    schemes = {family.replace("mel_", "bs_").removesuffix("_48k") for family in FAMILIES}
    assert schemes == LOADERS.keys() - {"hf", "shipped"}


def test_a_loader_gives_what_its_project_gives(case: Case) -> None:
    opened, separator = case
    mixture = noise(separator)
    with torch.no_grad():
        expected = opened.own(mixture)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(separator(mixture), expected, rtol=1e-5, atol=opened.rounding)


def test_what_is_compiled_exists(case: Case) -> None:
    _, separator = case
    parts: list[Any] = list(separator.modules())  # type: ignore[attr-defined]
    assert all(callable(getattr(part, name)) for part in parts for name in getattr(part, "compilable", ()))


def test_any_length_comes_back_and_items_are_independent(case: Case) -> None:
    _, separator = case
    assert not any(parameter.requires_grad for parameter in separator.parameters())  # type: ignore[attr-defined]
    for length in (1, 2, 701, 3333):
        mixture = noise(separator, length)
        estimates = separator(mixture)
        assert estimates.shape == (2, len(separator.sources), separator.channels, length)
        assert bool(torch.isfinite(estimates).all())
        # a loud neighbour must not change an item, beyond the order of sums
        louder = torch.cat([mixture[:1], 20 * noise(separator, length, seed=1)[1:]])
        torch.testing.assert_close(separator(louder)[:1], estimates[:1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(separator(mixture[1:]), estimates[1:], rtol=1e-4, atol=1e-5)


def test_silence_stays_finite_and_wrong_shapes_are_named(case: Case) -> None:
    opened, separator = case
    assert bool(torch.isfinite(separator(torch.zeros(1, separator.channels, 800))).all())
    shapes = [(1, separator.channels + 1, 800), (separator.channels, 800), (1, separator.channels, 0)]
    # networks of this project take any number of channels
    for shape in shapes[opened.uri.startswith(("file:", "weights:", "gtcrn:")) :]:
        with pytest.raises(ValueError, match="mixture has shape"):
            separator(torch.zeros(shape))


def test_gradients_go_through_where_the_network_lets_them(case: Case) -> None:
    opened, separator = case
    mixture = noise(separator).requires_grad_()
    estimates = separator(mixture)
    assert estimates.requires_grad == opened.differentiable
    if opened.differentiable:
        (gradient,) = torch.autograd.grad(estimates.square().sum(), mixture)
        assert float(gradient.abs().max()) > 0


def test_a_pretrained_separator_is_refined_like_any(case: Case) -> None:
    _, separator = case
    mixture = noise(separator)
    references = noise(separator, seed=2)[:, None].expand(-1, len(separator.sources), -1, -1)
    quality = get_metric("si_sdr", sample_rate=separator.sample_rate).bind(references=references)
    result = refine(separator, mixture, quality, GridSearch(steps=2, candidates=3))
    torch.testing.assert_close(result.one_step, separator(mixture), rtol=1e-4, atol=1e-5)
    assert bool((result.scores.diff(dim=0) >= 0).all())


def test_every_loader_takes_the_common_options(case: Case) -> None:
    opened, plain = case
    joint = "&" if "?" in opened.uri else "?"
    if "sources=" not in opened.uri:
        names = tuple(f"x{index}" for index in range(len(plain.sources)))
        assert load_separator(f"{opened.uri}{joint}sources={','.join(names)}").sources == names
    mixture = noise(plain)
    estimates, scaled = plain(mixture), load_separator(f"{opened.uri}{joint}level=least_squares")(mixture)
    gain = (scaled * estimates).sum((1, 2, 3)) / estimates.square().sum((1, 2, 3))
    torch.testing.assert_close(scaled, gain[:, None, None, None] * estimates, rtol=1e-4, atol=1e-6)
    # the remainder of a least squares fit is orthogonal to what was fitted
    total = scaled.sum(1)
    inner = ((mixture - total) * total).sum((1, 2))
    assert float((inner / total.square().sum((1, 2))).abs().max()) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_with_code_in_it_is_refused(family: str, tmp_path: Path) -> None:
    opened = FAMILIES[family](tmp_path)
    if not any(tmp_path.iterdir()):
        pytest.skip("its weights are those of an installed package")
    for path in tmp_path.iterdir():
        if path.suffix in (".pt", ".pth", ".th", ".ckpt", ".pt2", ".onnx", ".safetensors"):
            torch.save({"state_dict": {}, "trap": Trap(tmp_path / "marker")}, path)
    with pytest.raises(ValueError, match=r"is not a|is refused") as error:
        load_separator(opened.uri)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "marker").exists()
