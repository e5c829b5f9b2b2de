"""Samplers where refinement has guides, on bridges and on one-step separators read as bridges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from bridge_toys import BSRNN, bridge_config, toy_bridge
from infer_toys import run, write_pair
from separator_toys import close, noise
from torch import Tensor

from encore.inference import (
    BridgeSampler,
    FixedSchedule,
    GridSearch,
    Guide,
    evaluate,
    refine,
    sample_bridge,
    time_grid,
)
from encore.metrics import MetricPanel, get_quality
from encore.models.checkpoint import instantiate, save_separator
from encore.models.processes.bridge import BrownianBridge


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Counted:
    """A separator of so many sources that counts what it is asked."""

    def __init__(self, sources: int = 1) -> None:
        self.gains, self.calls = torch.linspace(0.9, 0.3, sources), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.gains[:, None, None] * x[:, None].tanh()


def test_a_separator_read_as_a_straight_bridge_is_progressive_inference() -> None:
    mixture, separate = noise(2, 1, 400), Counted()
    found = BridgeSampler(steps=4, last_time=0.0)(separate, mixture)
    assert separate.calls == 4
    assert found.evaluations.tolist() == [4, 4]
    expected = refine(Counted(), mixture, search=FixedSchedule([0.25, 0.5, 0.75]), keep_trajectory=True)
    close(found.trajectory[:4], expected.trajectory)
    close(found.estimate, expected.estimate)
    torch.testing.assert_close(found.ratios[:, 0], torch.tensor([0.75, 0.5, 0.25, 0.0]))


def test_every_source_is_followed_in_a_state_of_its_own() -> None:
    mixture, separate = noise(1, 2, 300), Counted(sources=3)
    found = BridgeSampler(steps=3)(separate, mixture, source="all")
    assert found.trajectory.shape == (4, 1, 3, 2, 300)
    assert separate.calls == int(found.evaluations[0]) == 1 + 3 * 2
    for source in range(3):
        alone = BridgeSampler(steps=3)(Counted(sources=3), mixture, source=source)
        close(alone.estimate, found.estimate[:, source])
        assert int(alone.evaluations[0]) == 3


def test_interchangeable_sources_stay_in_their_order() -> None:
    first_half = (torch.arange(300) < 150).float()

    def separate(x: Tensor) -> Tensor:
        return torch.stack((first_half * x.tanh(), (1 - first_half) * 0.5 * x), dim=1)

    calls = []

    def turning(x: Tensor) -> Tensor:
        calls.append(x)
        return separate(x).flip(1) if len(calls) % 2 else separate(x)

    mixture = noise(1, 1, 300)
    sampler = BridgeSampler(steps=4)
    steady = sampler(separate, mixture, source="all")
    reference = separate(mixture) + noise(1, 2, 1, 300, seed=3) * 0.3
    found = sampler(turning, mixture, source="all", interchangeable=True, reference=reference)
    close(found.trajectory, steady.trajectory)


def test_noise_of_a_separator_is_in_units_of_the_mixture() -> None:
    sampler = BridgeSampler(steps=3, bridge=BrownianBridge(0.5))
    mixture = noise(1, 1, 500)
    loud = sampler(lambda x: 0.5 * x[:, None], 10 * mixture, generator=generator())
    quiet = sampler(lambda x: 0.5 * x[:, None], mixture, generator=generator())
    close(loud.estimate, 10 * quiet.estimate)


@pytest.mark.parametrize("domain", ["waveform", "compressed"])
@pytest.mark.parametrize(("path", "order"), [("sde", 1), ("ode", 2)])
def test_a_bridge_is_sampled_in_its_own_states(domain: str, path: str, order: int) -> None:
    separator = toy_bridge(domain=domain, sources=("speech", "noise"))
    mixture = noise(2, 1, 2000)
    sampler = BridgeSampler(steps=3, path=path, order=order)
    with torch.no_grad():
        found = sampler(separator, mixture, source="all", generator=generator())
        level = separator.level(mixture)
        end = separator.encode(mixture[:, None], level)
        expected = sample_bridge(
            lambda state, t: separator.denoise(state, t, end),
            end.expand(-1, 2, *end.shape[2:]),
            separator.bridge,
            time_grid(3),
            path=path,
            order=order,
            generator=generator(),
        )
        close(found.estimate, separator.decode(expected.state, level, 2000))
        close(found.one_step, separator(mixture), relative=1e-3)
    assert found.evaluations.tolist() == [sampler.evaluations] * 2 == [len(expected.estimates)] * 2
    assert len(found.trajectory) == sampler.evaluations + 1
    assert found.ratios.shape == (sampler.evaluations, 2)
    ends = replace(sampler, whole_path=False)(separator, mixture, source="all", generator=generator())
    assert torch.equal(ends.trajectory, found.trajectory[[0, -1]])
    assert torch.equal(ends.ratios, found.ratios[-1:])


def test_told_shares_reach_the_network_as_its_time() -> None:
    separator = toy_bridge()
    mixture, quality = noise(1, 1, 2000), get_quality("si_sdr", sample_rate=16000)
    reference = noise(1, 1, 2000, seed=2)
    options = {"search": GridSearch(2), "quality": quality, "reference": reference, "steps": 1}
    with torch.no_grad():
        told = refine(separator, mixture, **options, keep_previous=False, tell_share=True)
        first = separator(mixture)[:, 0]
        blend = 0.5 * mixture + 0.5 * first
        candidate = separator(blend, torch.tensor([0.5]), mixture)[:, 0]
    best = max((first, candidate), key=lambda y: float(quality(y, reference=reference)))
    close(told.estimate, best)
    assert told.evaluations.tolist() == [2]
    blind = refine(separator, mixture, **options, keep_previous=False)
    assert not torch.equal(blind.scores[1], told.scores[1]) or torch.equal(best, first)


@pytest.mark.parametrize("options", [{"blend": "state"}, {"standardise": True}, {"separate": Counted()}])
def test_shares_are_told_only_where_they_mean_something(options: dict) -> None:
    given = {"separate": toy_bridge()} | options
    with pytest.raises(ValueError, match="tell_share=True"):
        refine(given.pop("separate"), noise(1, 1, 100), search=FixedSchedule([0.5]), tell_share=True, **given)


def test_samplers_stand_beside_guides_in_the_score_table() -> None:
    ways = {
        0: BridgeSampler(steps=2),
        1: BridgeSampler(steps=2, path="ode", order=2, label="second"),
        2: Guide(search=FixedSchedule([0.5]), tell_share=True),
    }
    mixture = noise(1, 1, 4000)
    with torch.no_grad():
        result = evaluate(
            toy_bridge(),
            mixture,
            ways,
            MetricPanel(["snr"], sample_rate=16000),
            run="r",
            items=["i"],
            reference=0.5 * mixture,
            generator=generator(),
        )
    found = {(row["guide"], row["kind"], row["step"], row["evaluations"]) for row in result.rows}
    assert {("bridge_2", "fixed", step, 2) for step in range(3)} <= found
    assert {("second", "fixed", step, 3) for step in range(4)} <= found
    assert ("none", "one_step", 0, 1) in found


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"steps": 0}, "steps=0"),
        ({"last_time": 1.0}, "last_time=1.0"),
        ({"path": "x"}, "path='x'"),
        ({"order": 3}, "3"),
    ],
)
def test_a_sampler_checks_what_it_is(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        BridgeSampler(**options)


@pytest.fixture(scope="module")
def bridge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "bridge.safetensors"
    config = bridge_config(BSRNN)
    torch.manual_seed(0)
    save_separator(path, instantiate(config), config)
    return path


@pytest.mark.parametrize(
    "options", [(), ("--set", "method.sampler.path=ode", "--set", "method.sampler.order=2")]
)
def test_infer_samples_a_bridge(
    bridge_file: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "a.wav", frames=20000)
    arguments = ("-o", tmp_path / "out", "--separator", bridge_file, "--method", "bridge", "--steps", 3)
    assert run(tmp_path / "noisy", *arguments, "--reference", tmp_path / "clean", *options) == 0
    assert soundfile.info(tmp_path / "out" / "a.wav").frames == 20000
    assert "fixed" in capsys.readouterr().out
    # in segments, and the same again from the same seed
    for out in ("first", "second"):
        given = (
            "-o",
            tmp_path / out,
            *arguments[2:],
            "--segment",
            0.8,
            "--set",
            "method.overlap_seconds=0.1",
        )
        assert run(tmp_path / "noisy", *given, "--no-scores", *options) == 0
    assert (tmp_path / "first" / "a.wav").read_bytes() == (tmp_path / "second" / "a.wav").read_bytes()


def test_infer_reads_any_separator_as_a_bridge(mono: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "a.wav")
    arguments = ("--separator", mono, "--method", "bridge", "--steps", 3, "--no-scores")
    assert run(tmp_path / "noisy", "-o", tmp_path / "out", *arguments) == 0
    brownian = "method.sampler.bridge={_target_: encore.models.processes.bridge.BrownianBridge, g: 0.3}"
    assert run(tmp_path / "noisy", "-o", tmp_path / "noised", *arguments, "--set", brownian) == 0
    plain, noised = (soundfile.read(tmp_path / name / "a.wav")[0] for name in ("out", "noised"))
    assert abs(plain - noised).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--steps", 0), "steps=0"),
        (("--guide", "si_sdr"), "--guide"),
        (("--set", "method.sampler.path=sideways"), "path='sideways'"),
        (("--sources", "speech"), "--sources speech"),
        (("--shifts", 2), "shifts=2"),
        (("--set", "method.refine_per=item"), "refine_per=item"),
    ],
)
def test_infer_says_what_a_bridge_cannot(
    bridge_file: Path, tmp_path: Path, options: tuple, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "a.wav")
    given = ("-o", tmp_path / "out", "--separator", bridge_file, "--method", "bridge", *options)
    assert run(tmp_path / "noisy", *given) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert fault in errors[0]
