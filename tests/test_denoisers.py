"""Networks that are told a time, and the separators made of them and a bridge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bridge_toys import BSRNN, MASKS, bridge_config, toy_bridge
from separator_toys import close, noise

from encore.models import load_separator
from encore.models.checkpoint import instantiate, load_checkpoint, save_separator
from encore.models.denoisers.preconditioning import LinearEstimate, NoisePrediction
from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.processes.bridge import I2SB, BrownianBridge, SchroedingerVE

NETWORKS = pytest.mark.parametrize("network", [BSRNN, MASKS], ids=["bsrnn", "masks"])
DOMAINS = pytest.mark.parametrize("domain", ["waveform", "compressed"])


@NETWORKS
@DOMAINS
@pytest.mark.parametrize("length", [1, 100, 4001])
def test_states_of_any_length_come_back(network: dict, domain: str, length: int) -> None:
    separator = toy_bridge(network, domain=domain, channels=2)
    waveforms = noise(2, 1, 2, length)
    level = separator.level(waveforms[:, 0])
    close(separator.decode(separator.encode(waveforms, level), level, length), waveforms, relative=1e-3)


@NETWORKS
@DOMAINS
def test_the_time_is_heard(network: dict, domain: str) -> None:
    separator = toy_bridge(network, domain=domain)
    mixture = noise(2, 1, 2000)
    early, late = (separator(mixture, torch.tensor([t, 0.9]), mixture) for t in (0.1, 0.9))
    assert not torch.allclose(early[0], late[0], rtol=1e-3)
    assert torch.equal(early[1], late[1])


@DOMAINS
def test_before_training_bsrnn_gives_about_the_mixture_at_any_time(domain: str) -> None:
    separator = toy_bridge(domain=domain, conditioned=False)
    mixture, other = noise(1, 1, 4000), noise(1, 1, 4000, seed=1)
    estimate = separator(other, torch.tensor([0.5]), mixture)[:, 0]
    assert float((estimate - mixture).norm() / mixture.norm()) < 0.3


def test_checkpoints_hold_network_bridge_and_preconditioning(tmp_path: Path) -> None:
    config = bridge_config(
        preconditioning={
            "_target_": "encore.models.denoisers.preconditioning.LinearEstimate",
            "source": 0.5,
            "covariance": 0.5,
        },
        bridge={
            "_target_": "encore.models.processes.bridge.Scaled",
            "bridge": {"_target_": "encore.models.processes.bridge.BBED"},
            "scale": 0.3,
        },
    )
    separator = instantiate(config).eval()
    path = tmp_path / "bridge.safetensors"
    save_separator(path, separator, config)
    loaded = load_separator(str(path))
    assert (loaded.sources, loaded.sample_rate, loaded.channels) == (("speech",), 16000, 1)
    mixture = noise(1, 1, 1000)
    assert torch.equal(load_checkpoint(path).eval()(mixture), separator(mixture))


def test_the_linear_estimate_is_that_of_least_squares() -> None:
    """Against a regression on drawn states, and its own variances."""
    bridge, count = BrownianBridge(0.8), 400_000
    weights = LinearEstimate(source=0.6, mixture=1.0, covariance=0.5)
    generator = torch.Generator().manual_seed(0)
    first, second, z = torch.randn(3, count, generator=generator, dtype=torch.float64)
    mixture = first
    source = 0.5 * first + (0.6 - 0.25) ** 0.5 * second
    for t in (0.2, 0.7):
        a, b, c = bridge.coefficients(torch.tensor(t, dtype=torch.float64))
        state = a * source + b * mixture + c * z
        skip, out, into = weights(bridge, torch.tensor(t, dtype=torch.float64))
        assert float(skip) == pytest.approx(float((state * source).mean() / state.square().mean()), rel=0.01)
        assert float(out) == pytest.approx(float((source - skip * state).std()), rel=0.01)
        assert float((into * state).std()) == pytest.approx(1, rel=0.01)


def test_noise_prediction_is_that_of_i2sb() -> None:
    bridge = I2SB()
    skip, out, into = NoisePrediction()(bridge, torch.tensor([0.5]))
    assert (float(skip), float(into)) == (1, 1)
    assert float(out) == pytest.approx(-(float(bridge.variance(torch.tensor([0.5]).double())) ** 0.5))


@NETWORKS
@DOMAINS
@pytest.mark.parametrize("kind", ["LinearEstimate", "NoisePrediction"])
def test_preconditioned_estimates_are_the_weighted_sum(network: dict, domain: str, kind: str) -> None:
    options = {"domain": domain, "bridge": {"_target_": "encore.models.processes.bridge.SchroedingerVE"}}
    separator = toy_bridge(
        network, **options, preconditioning={"_target_": f"encore.models.denoisers.preconditioning.{kind}"}
    )
    mixture = noise(1, 1, 4000)
    level = separator.level(mixture)
    end = separator.encode(mixture[:, None], level)
    state = 0.7 * end + 0.1 * torch.randn_like(end)
    # a waveform that no transform has to put up with
    t = torch.tensor([0.4])
    skip, out, into = separator.preconditioning(SchroedingerVE(), t)
    found = separator.denoise(state, t, end)
    separator.preconditioning = None
    bare = separator.denoise(into * state, t, end)
    close(found, skip * state + out * bare, relative=1e-3)


def test_films_begin_as_nothing_and_tell_times_apart() -> None:
    films = TimeFilms([3, 5], size=8)
    found = films(torch.tensor([0.0, 0.5]))
    assert [tuple(part.shape for part in pair) for pair in found] == [((2, 3), (2, 3)), ((2, 5), (2, 5))]
    assert all(float(part.detach().abs().max()) == 0 for pair in found for part in pair)
    torch.nn.init.ones_(films.heads[0].weight)
    scale = films(torch.tensor([0.0, 0.5, 1.0]))[0][0]
    assert len({round(float(row[0]), 5) for row in scale}) == 3
