"""The network of source priors: its published size, any length, its start, classes, and its transforms."""

from __future__ import annotations

import pytest
import torch
from separator_toys import noise

from encore.models.denoisers.attention import rotate
from encore.models.denoisers.tf_attention_unet import TFAttentionUNet

TINY = {"widths": (8, 16, 8), "depths": (1, 1, 1), "window": 62, "heads": 2}


def tiny(**options) -> TFAttentionUNet:
    torch.manual_seed(0)
    return TFAttentionUNet(**({"zero_init": False} | TINY | options)).eval()


def test_the_default_has_the_published_size() -> None:
    with torch.device("meta"):
        unconditional, with_classes = TFAttentionUNet(), TFAttentionUNet(41)
    for network in (unconditional, with_classes):
        count = sum(weight.numel() for weight in network.parameters())
        assert count == pytest.approx(37.2e6, rel=0.01)


# 31 samples a hop: 124 hold 5 frames, 93 four, which are not padded
@pytest.mark.parametrize("time", [1, 10, 32, 93, 94, 124, 500])
@torch.no_grad()
def test_any_length(time: int) -> None:
    network, level = tiny(), torch.tensor([3.0, 900.0])
    found = network(noise(2, 1, time), level)
    assert found.shape == (2, 1, time)
    assert bool(torch.isfinite(found).all())
    assert torch.equal(found, network(noise(2, 1, time), level))
    assert (found - network(noise(2, 1, time, seed=1), level)).norm() > 0.01 * found.norm() > 0


def test_it_starts_with_no_noise_found_and_blocks_that_do_nothing() -> None:
    network = tiny(zero_init=True)
    assert float(network(noise(1, 1, 300), torch.tensor([5.0])).abs().max()) == 0
    x = torch.randn(1, 16, 4, 16)
    for block in network.stages[1]:
        assert torch.equal(block(x, torch.randn(1, 128)), x)
    assert float(tiny()(noise(1, 1, 300), torch.tensor([5.0])).abs().max()) > 0


def test_every_weight_learns() -> None:
    network = tiny(classes=3)
    network(noise(2, 1, 300), torch.tensor([5.0, 700.0]), torch.tensor([0, 2])).square().sum().backward()
    idle = [
        name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    # a constant key adds the same to all scores of a query
    assert all(name.endswith("qkv.bias") for name in idle), idle


def test_items_do_not_see_each_other_and_level_and_class_are_heard() -> None:
    network, x = tiny(classes=3), noise(3, 1, 300)
    told, labels = torch.tensor([0.0, 400.0, 995.0]), torch.tensor([0, 1, 3])
    together = network(x, told, labels)
    for item in range(3):
        alone = network(x[item : item + 1], told[item : item + 1], labels[item : item + 1])
        torch.testing.assert_close(together[item : item + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], network(x[:1], torch.tensor([5.0]), labels[:1])[0], atol=1e-4)
    assert not torch.allclose(together[0], network(x[:1], told[:1], torch.tensor([1]))[0], atol=1e-4)
    # no label stands for any class
    torch.testing.assert_close(network(x[2:], told[2:]), together[2:], atol=1e-5, rtol=1e-4)


def test_transforms_stay_in_float32_and_keep_unit_variance() -> None:
    network, x = tiny(), noise(1, 1, 20000)
    with torch.autocast("cpu", torch.bfloat16):
        spectra = network._analyze(x)
        back = network._synthesize(spectra.bfloat16(), 20000)
        found = network(x, torch.tensor([5.0]))
    assert spectra.dtype == back.dtype == found.dtype == torch.float32
    torch.testing.assert_close(network._synthesize(network._analyze(x), 20000), x, atol=1e-5, rtol=0)
    assert float(spectra[:, 1:-1].std() / x.std()) == pytest.approx(1, rel=0.02)
    full = network(x, torch.tensor([5.0]))
    assert float((found - full).norm() / full.norm()) < 0.05


@pytest.mark.parametrize("time", [216, 8029, 8061])
def test_what_it_finds_is_not_magnified_at_the_ends(time: int) -> None:
    network = tiny()
    shape = network._analyze(torch.zeros(64, 1, time)).shape
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = network._synthesize(drawn, time)
    assert found.shape == (64, 1, time)
    deviations = found.std(dim=(0, 1))
    # at the very ends there is one window instead of two
    assert float(deviations.max()) < 2 * float(deviations[62:-62].mean())


def test_positions_count_by_their_distance_only() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned_q, turned_k = rotate(q.expand(1, 1, 12, 8)), rotate(k.expand(1, 1, 12, 8))
    scores = (turned_q @ turned_k.transpose(-1, -2))[0, 0]
    for distance in (-5, 0, 3):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)
    assert float(scores[0].std()) > 0.01
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1).expand(1, 1, 12))
