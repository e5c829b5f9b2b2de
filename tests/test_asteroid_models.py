from __future__ import annotations

import sys

import pytest
import torch
from separator_toys import configured, noise
from torch import nn

from encore.common.packages import MissingPackageError
from encore.models.checkpoint import instantiate
from encore.models.costs import parameters
from encore.models.separators.asteroid import INSTALL, AsteroidSeparator

FAMILIES = ("conv_tasnet", "dprnn_tasnet", "sudormrf", "dptnet")


def built(family: str) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(configured(f"{family}_tiny")).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_frames_give_what_the_bare_network_gives(family: str) -> None:
    separator = built(family)
    mixture = noise(1, 1, 32 + 16 * 50)
    with torch.no_grad():
        torch.testing.assert_close(separator(mixture)[:, :, 0], separator.network(mixture), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["conv_tasnet", "dprnn_tasnet", "dptnet"])
def test_padding_is_the_least_that_holds_the_mixture(family: str) -> None:
    separator = built(family)  # kernel 32, stride 16
    for length, whole in ((1, 32), (33, 48), (48, 48), (49, 64), (1000, 1008)):
        mixture = noise(1, 1, length)
        padded = torch.cat([mixture, torch.zeros(1, 1, whole - length)], dim=-1)
        with torch.no_grad():
            expected = separator.network(padded)[..., :length]
            torch.testing.assert_close(separator(mixture)[:, :, 0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_size_is_more_than_twice_the_one_before(family: str) -> None:
    with torch.device("meta"):
        tiny, small, medium = (
            parameters(instantiate(configured(f"{family}_{size}"))) for size in ("tiny", "small", "medium")
        )
    assert 1e5 <= tiny <= 3e5
    assert small > 2 * tiny
    assert medium > 2 * small


def test_without_asteroid_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asteroid.models", None)
    with pytest.raises(MissingPackageError, match="'ConvTasNet' needs the package asteroid: pip ") as error:
        AsteroidSeparator("ConvTasNet", ["speech"], 16000)
    assert str(error.value).endswith(INSTALL)
