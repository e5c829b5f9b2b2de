"""Consistency training and distillation of bridges."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bridge_toys import MASKS, bridge_config, toy_bridge
from test_bridge_sampling import GaussianData
from toys import toy_data, toy_trainer

from encore.lightning_modules.bridge import BridgeState
from encore.lightning_modules.bridge_consistency import ConsistencyModule
from encore.lightning_modules.losses import FixedOrder, negative_snr
from encore.models.checkpoint import save_separator


def module(**options) -> ConsistencyModule:
    return ConsistencyModule(
        options.pop("separator", None) or toy_bridge(),
        loss=FixedOrder(negative_snr),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        **options,
    )


def gaussian(trained: ConsistencyModule, u: float) -> tuple[BridgeState, GaussianData, torch.Tensor]:
    """Items of Gaussian samples at time u; the network knows where each path ends, and stands in for it."""
    bridge = trained.separator.bridge
    mixture = torch.full((1, 1, 1, 4000), 1.1)
    data = GaussianData(bridge, mixture[:, 0])
    torch.manual_seed(1)
    source = data.gain * mixture + data.variance**0.5 * torch.randn_like(mixture)
    z, t = torch.randn_like(mixture), torch.tensor([u])
    place = BridgeState(
        t=t, source=source, mixture=mixture, noise=z, state=bridge.state(t, source, mixture, z)
    )
    trained.separator.estimate = lambda state, t, *_: data.flow(state, float(t), trained.t_min)
    return place, data, source


@pytest.mark.parametrize("u", [0.2, 0.6])
def test_the_exact_map_to_the_end_of_the_path_is_what_distillation_asks_for(u: float) -> None:
    """On Gaussian data it is known; what is left is the error of the teacher's step, of second order."""
    missed = []
    for grid in (10, 20, 40):
        trained = module(grid=grid)
        place, data, _ = gaussian(trained, u)
        teacher = toy_bridge()
        teacher.denoise = lambda state, t, mixture, data=data: data.denoise(state[:, 0], t)[:, None]
        trained._teacher = [teacher]
        wanted = data.flow(place.state, u, trained.t_min)
        missed.append(float((trained._targets(place, place.source) - wanted).abs().max()))
    assert missed[0] < 0.02
    assert all(2.5 < before / after < 6 for before, after in pairwise(missed)), missed


def test_without_a_teacher_the_state_further_down_has_the_same_noise() -> None:
    trained = module(grid=10)
    place, _, source = gaussian(trained, 0.6)
    seen: list[torch.Tensor] = []
    trained.separator.estimate = lambda state, t, *_: seen.extend((state, t)) or state
    trained._targets(place, source)
    assert float(seen[1]) == pytest.approx(0.6 - (1 - trained.t_min) / 10)
    expected = trained.separator.bridge.state(seen[1], source, place.mixture, place.noise)
    torch.testing.assert_close(seen[0], expected, atol=1e-4, rtol=0)


def test_the_grid_ends_in_the_state_itself() -> None:
    trained = module(grid=4)
    trained.t_min = 0.0
    place, _, source = gaussian(trained, 0.25)
    trained.separator.estimate = lambda state, *_: torch.full_like(state, torch.nan)
    torch.testing.assert_close(trained._targets(place, source), source, atol=1e-5, rtol=0)


def test_times_are_those_of_the_grid_each_as_often() -> None:
    trained = module(grid=5)
    times = trained._times(torch.linspace(0, 0.999, 1000))
    found, counts = times.unique(return_counts=True)
    torch.testing.assert_close(found, torch.linspace(trained.t_min, 1, 6)[1:])
    assert counts.tolist() == pytest.approx([200] * 5, abs=2)
    with pytest.raises(ValueError, match="grid=0"):
        module(grid=0)


@pytest.mark.parametrize("domain", ["waveform", "compressed"])
def test_distillation_trains_and_leaves_the_teacher_alone(domain: str, tmp_path: Path, corpus: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    save_separator(teacher, toy_bridge(domain=domain), bridge_config(domain=domain))
    trained = module(separator=toy_bridge(domain=domain), teacher=teacher, grid=4)
    before = {name: value.clone() for name, value in trained._teacher[0].state_dict().items()}
    trainer = toy_trainer(tmp_path, max_steps=8)
    trainer.fit(trained, toy_data(corpus))
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    for name, value in trained._teacher[0].state_dict().items():
        assert torch.equal(value, before[name])
    assert all(name.startswith(("separator.", "loss.")) for name in trained.state_dict())
    assert any(not torch.equal(value, before[name]) for name, value in trained.separator.state_dict().items())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"network": MASKS}, None),
        ({"domain": "compressed"}, "domain='compressed'"),
        ({"sources": ("speech", "rest")}, r"sources=\('speech', 'rest'\)"),
        (
            {"bridge": {"_target_": "encore.models.processes.bridge.SchroedingerVE"}},
            "SchroedingerVE of other",
        ),
    ],
)
def test_a_teacher_is_a_bridge_of_the_same_process(tmp_path: Path, options: dict, fault: str | None) -> None:
    path = tmp_path / "teacher.safetensors"
    save_separator(path, toy_bridge(conditioned=False, **options), bridge_config(**options))
    if fault is None:
        module(teacher=path)
        return
    with pytest.raises(ValueError, match=fault):
        module(teacher=path)
