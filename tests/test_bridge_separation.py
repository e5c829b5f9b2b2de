"""Samplers of bridges as refinement methods, on bridges and on one-step separators read as bridges."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from bridge_toys import BSRNN, bridge_config, toy_bridge
from infer_toys import run, write_pair
from prior_toys import generator
from separator_toys import close, noise
from torch import Tensor

from encore.inference import BridgeSampler, GridSearch, RefineOptions, Trajectory, evaluate, refine_fixed
from encore.inference.bridges import SAMPLERS, bridge_grid, time_grid, white_noise, with_ratio
from encore.metrics import MetricPanel
from encore.models.checkpoint import instantiate, save_separator
from encore.models.processes.bridge import BrownianBridge
from encore.models.wrappers import select


class Counted:
    """A separator that counts its calls."""

    sample_rate, channels = 16000, 2

    def __init__(self, sources: int = 1, channels: int = 1) -> None:
        self.gains, self.calls, self.channels = torch.linspace(0.9, 0.3, sources), 0, channels
        self.sources = tuple("abc"[:sources])

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.gains[:, None, None] * x[:, None].tanh()


def test_a_separator_read_as_a_straight_bridge_is_progressive_inference() -> None:
    mixture, separate, steps = noise(2, 1, 400), Counted(), Trajectory()
    found = BridgeSampler(steps=4, t_min=0.0)(separate, mixture, callback=steps)
    assert separate.calls == 4
    assert found.evaluations.tolist() == [4, 4]
    fixed = Trajectory()
    expected = refine_fixed(Counted(), mixture, [0.75, 0.5, 0.25], callback=fixed)
    close(found.one_step, expected.one_step)
    close(torch.stack(steps.estimates[:3]), torch.stack(fixed.estimates))
    close(found.estimates, expected.estimates)
    torch.testing.assert_close(found.ratios[:, 0], torch.tensor([0.75, 0.5, 0.25, 0.0]))
    assert bool(found.scores.isnan().all())


def test_every_source_has_its_own_state() -> None:
    mixture, separate = noise(1, 2, 300), Counted(sources=3, channels=2)
    found = BridgeSampler(steps=3)(separate, mixture)
    assert found.estimates.shape == (1, 3, 2, 300)
    # once at the mixture, then once a source
    assert separate.calls == int(found.evaluations[0]) == 1 + 3 * 2
    for source in range(3):
        one = Counted(channels=2)
        one.gains = separate.gains[[source]]
        alone = BridgeSampler(steps=3)(one, mixture)
        close(alone.estimates[:, 0], found.estimates[:, source])
        assert int(alone.evaluations[0]) == 3


def test_interchangeable_sources_stay_in_their_order() -> None:
    first_half = (torch.arange(300) < 150).float()

    class Speakers:
        sources, sample_rate, channels = ("speaker1", "speaker2"), 16000, 1

        def __init__(self, turning: bool) -> None:
            self.turning, self.calls = turning, 0

        def __call__(self, x: Tensor) -> Tensor:
            self.calls += 1
            found = torch.stack((first_half * x.tanh(), (1 - first_half) * 0.5 * x), dim=1)
            return found.flip(1) if self.turning and self.calls % 2 else found

    mixture, sampler = noise(1, 1, 300), BridgeSampler(steps=4)
    steady = Speakers(turning=False)
    references = steady(mixture) + noise(1, 2, 1, 300, seed=3) * 0.3
    expected = sampler(steady, mixture)
    found = sampler(Speakers(turning=True), mixture, references=references)
    close(found.one_step, expected.one_step)
    close(found.estimates, expected.estimates)


def test_noise_of_a_separator_is_in_units_of_the_mixture() -> None:
    sampler = BridgeSampler(steps=3, bridge=BrownianBridge(0.5))
    mixture, linear = noise(1, 1, 500), Counted()
    linear.__class__ = type("Linear", (Counted,), {"__call__": lambda self, x: 0.5 * x[:, None]})
    loud = sampler(linear, 10 * mixture, generator=generator())
    quiet = sampler(linear, mixture, generator=generator())
    close(loud.estimates, 10 * quiet.estimates)


@pytest.mark.parametrize("domain", ["waveform", "compressed"])
@pytest.mark.parametrize("path", ["sde", "ode2"])
def test_a_bridge_is_sampled_in_its_own_states(domain: str, path: str) -> None:
    separator = toy_bridge(domain=domain, sources=("speech", "noise"))
    mixture, steps, last = noise(2, 1, 2000), Trajectory(), Trajectory()
    sampler = BridgeSampler(steps=3, path=path)
    with torch.no_grad():
        found = sampler(separator, mixture, generator=generator(), callback=steps)
        level = separator.level(mixture)
        end = separator.encode(mixture[:, None], level)
        start = end.expand(-1, 2, *end.shape[2:])
        state = SAMPLERS[path](
            lambda state, t: separator.denoise(state, t, end),
            start,
            bridge_grid(separator.bridge, time_grid(3)),
            white_noise(start, generator()),
            None,
        )
        close(found.estimates, separator.decode(state, level, 2000))
        close(found.one_step, separator(mixture), relative=1e-3)
    assert found.evaluations.tolist() == [sampler.evaluations] * 2 == [5 if path == "ode2" else 3] * 2
    assert (found.ratios.shape, found.scores.shape) == ((3, 2), (4, 2))
    assert steps.numbers == [1, 2, 3]
    assert torch.equal(steps.estimates[-1], found.estimates)
    sampler = BridgeSampler(steps=3, path=path, every_step=False)
    sampler(separator, mixture, generator=generator(), callback=last)
    assert last.numbers == [3]
    assert torch.equal(last.estimates[0], found.estimates)


def test_some_sources_of_a_bridge_are_sampled_with_the_others() -> None:
    separator, mixture = toy_bridge(sources=("speech", "noise")), noise(1, 1, 2000)
    whole = BridgeSampler(steps=2)(separator, mixture, generator=generator())
    part = BridgeSampler(steps=2)(select(separator, "noise"), mixture, generator=generator())
    assert torch.equal(part.estimates, whole.estimates[:, [1]])
    assert torch.equal(part.one_step, whole.one_step[:, [1]])
    ratio = torch.tensor([0.3])
    with torch.no_grad():
        whole, part = (
            with_ratio(one, mixture).at_ratio(0.5 * mixture, ratio)
            for one in (separator, select(separator, "noise"))
        )
    assert torch.equal(part, whole[:, [1]])


def test_a_mono_bridge_samples_every_channel_alone() -> None:
    separator, mixture = toy_bridge(sources=("speech", "noise")), noise(2, 3, 2000)
    found = BridgeSampler(steps=2)(separator, mixture, generator=generator())
    assert found.estimates.shape == (2, 2, 3, 2000)
    for channel in range(3):
        alone = BridgeSampler(steps=2)(separator, mixture[:, [channel]], generator=generator())
        close(found.estimates[:, :, [channel]], alone.estimates)
    with pytest.raises(ValueError, match="mixture has 3 channels, the bridge 2"):
        BridgeSampler(steps=2)(toy_bridge(channels=2), mixture, generator=generator())


def test_samplers_stand_beside_refinements_in_the_score_table() -> None:
    methods = {
        "bridge_2": BridgeSampler(steps=2),
        "second": BridgeSampler(steps=2, path="ode2"),
        "ratio": RefineOptions(search=torch.tensor([0.5]), with_ratio=True),
    }
    mixture = noise(1, 1, 4000)
    with torch.no_grad():
        result = evaluate(
            toy_bridge(),
            mixture,
            methods,
            MetricPanel(["snr"], sample_rate=16000),
            run="r",
            items=["i"],
            references=0.5 * mixture[:, None],
            generator=generator(),
        )
    found = {(row["method"], row["kind"], row["step"], row["evaluations"]) for row in result.rows}
    assert {("bridge_2", "fixed", step, 2) for step in range(3)} <= found
    assert {("second", "fixed", step, 3) for step in range(3)} <= found
    assert ("none", "one_step", 0, 1) in found


def test_a_method_that_needs_references_is_left_out_where_there_are_none() -> None:
    search = GridSearch(2, steps=1)
    methods = {guide: RefineOptions(search=search, guide=guide) for guide in ("si_sdr", "dnsmos_p808")}
    panel, mixture = MetricPanel(["dnsmos_p808"], sample_rate=16000), noise(1, 1, 4000)
    with torch.no_grad():
        result = evaluate(toy_bridge(), mixture, methods, panel, run="r", items=["i"])
    assert set(result.refined) == {"dnsmos_p808"}
    assert {row["kind"] for row in result.rows} == {"mixture", "one_step", "blind"}


@pytest.fixture(scope="module")
def bridge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "bridge.safetensors"
    config = bridge_config(BSRNN)
    torch.manual_seed(0)
    save_separator(path, instantiate(config), config)
    return path


@pytest.mark.parametrize("options", [("--sources", "speech"), ("--set", "method.sampler.path=ode2")])
def test_infer_samples_a_bridge_in_segments_and_the_same_again(
    bridge_file: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    few_metrics: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path, "a.wav", frames=20000)
    arguments = ("--separator", bridge_file, "--method", "bridge", "--steps", 3, *options)
    arguments += ("--segment", 0.8, "--set", "method.overlap_seconds=0.1", "--reference", tmp_path / "clean")
    for out in ("first", "second"):
        assert run(tmp_path / "noisy", "-o", tmp_path / out, *arguments) == 0
    assert "fixed" in capsys.readouterr().out
    first, second = (soundfile.read(tmp_path / out / "a.wav")[0] for out in ("first", "second"))
    assert first.shape == (20000,)
    assert (first == second).all()


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
