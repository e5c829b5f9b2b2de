"""Separators made of priors: levels, draws, order of sources, and infer.py from end to end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from infer_toys import run, separator_file
from prior_toys import CLASSES, prior_config, smooth_and_rough, toy_prior
from separator_toys import noise

from commands.overrides import UserError
from commands.prior_method import PosteriorSettings, prior_separator
from inference import GridSearch, refine
from inference.guidance import Projection
from inference.posterior import Ancestral, Problem, Start
from inference.posterior_log import PosteriorSample
from inference.prior_separation import PriorSeparator
from inference.source_priors import SourcePrior
from metrics import get_quality
from models.checkpoint import instantiate, save_separator
from models.processes.diffusion import ContinuousDiffusion, DiscreteDiffusion
from models.types import LoadedSeparator, exchangeable

SOLVER = Ancestral(guidance=Projection())


class Gaussian(torch.nn.Module):
    """The ideal denoiser of a Gaussian source as a model."""

    classes = ()
    limit = None

    def __init__(self, denoise) -> None:
        super().__init__()
        self.denoise = denoise

    def forward(self, state, signal, labels):
        return self.denoise(state, signal)


def separator(**options) -> PriorSeparator:
    sources, _ = smooth_and_rough()
    priors = [SourcePrior(model=Gaussian(denoise)) for denoise in sources.priors]
    settings = {
        "solver": SOLVER,
        "levels": DiscreteDiffusion().levels(40),
        "sample_rate": 8000,
        "start": Start(),
        "level_db": None,
    }
    return PriorSeparator(priors, ["smooth", "rough"], **(settings | options))


def test_it_is_a_separator_whose_estimates_follow_the_mixtures_level() -> None:
    _, mixture = smooth_and_rough()
    made = separator(level_db=-22.5)
    assert isinstance(made, LoadedSeparator)
    assert (made.sources, made.sample_rate, made.channels) == (("smooth", "rough"), 8000, 1)
    found = made(mixture)
    assert found.shape == (20, 2, 1, 100)
    torch.testing.assert_close(made(1000 * mixture), 1000 * found)
    # at its own level a mixture is another one
    assert not torch.allclose(separator()(1000 * mixture), 1000 * separator()(mixture), rtol=0.1)
    # sources of -22.5 dB each are what the priors then see
    seen = []
    made.solver = lambda problem: seen.append(problem.mixture) or SOLVER(problem)
    made(mixture[:1])
    assert 10 * float(seen[0].square().mean().log10()) == pytest.approx(-22.5 + 10 * 0.30103, abs=1e-3)
    assert torch.equal(made(torch.zeros(1, 1, 100).double()).isfinite(), torch.ones(1, 2, 1, 100).bool())


def test_the_seed_decides_and_the_batch_does_not() -> None:
    _, mixture = smooth_and_rough()
    first = separator(seed=1)(mixture)
    assert torch.equal(separator(seed=1)(mixture), first)
    torch.testing.assert_close(separator(seed=1)(mixture[3:4])[0], first[3])
    assert not torch.allclose(separator(seed=2)(mixture), first)


@pytest.mark.parametrize("choose", ["consistency", "likelihood", "both"])
def test_the_best_of_several_draws_is_kept(choose: str) -> None:
    _, mixture = smooth_and_rough()
    made = separator(draws=6, choose=choose, solver=Ancestral(guidance=Projection(), stop=0.5))
    best, sample = made.sample(mixture)
    draws = sample.estimates.unflatten(0, (6, 20))
    assert not torch.allclose(draws[0], draws[1])
    torch.testing.assert_close(made(mixture[3:4])[0], best[3])
    misses = (mixture - draws.sum(dim=2)).square().sum(dim=(2, 3))
    unlikely = torch.stack([made.unlikeliness(draw) for draw in draws])
    chosen = [next(d for d in range(6) if torch.equal(draws[d, item], best[item])) for item in range(20)]
    items = range(20)
    if choose == "consistency":
        assert chosen == misses.argmin(0).tolist()
    elif choose == "likelihood":
        assert chosen == unlikely.argmin(0).tolist()
    else:
        for item, draw in zip(items, chosen, strict=True):
            ranks = [
                (misses[:, item] < misses[d, item]).sum() + (unlikely[:, item] < unlikely[d, item]).sum()
                for d in range(6)
            ]
            assert ranks[draw] == min(ranks)


def test_the_mean_of_draws_is_nearer_than_each() -> None:
    sources, mixture = smooth_and_rough()
    mean, sample = separator(draws=6, choose="mean").sample(mixture)
    draws = sample.estimates.unflatten(0, (6, 20))
    torch.testing.assert_close(mean, draws.mean(0))
    true = sources.mean(mixture)
    assert float((mean - true).norm()) < 0.9 * min(float((draw - true).norm()) for draw in draws)


def test_draws_of_interchangeable_sources_are_brought_into_one_order() -> None:
    sources, mixture = smooth_and_rough()
    priors = [SourcePrior(model=Gaussian(denoise)) for denoise in sources.priors]
    true = sources.mean(mixture)

    def turning(problem: Problem) -> PosteriorSample:
        estimates = torch.cat((true, true.flip(1)))
        return replace(SOLVER(problem), estimates=estimates)

    options = {"solver": turning, "levels": DiscreteDiffusion().levels(3), "sample_rate": 8000}
    options |= {"start": Start(), "level_db": None, "draws": 2, "choose": "mean"}
    torch.testing.assert_close(PriorSeparator(priors, ["speaker1", "speaker2"], **options)(mixture), true)
    mixed_up = PriorSeparator(priors, ["smooth", "rough"], **options)(mixture)
    torch.testing.assert_close(mixed_up, (true + true.flip(1)) / 2)


def test_likelihood_tells_a_source_from_its_opposite() -> None:
    """Estimates in each other's place are less likely."""
    sources, mixture = smooth_and_rough()
    made, right = separator(), sources.mean(mixture)
    assert bool((made.unlikeliness(right) < made.unlikeliness(right.flip(1))).all())


def test_a_separators_estimate_can_be_the_start() -> None:
    sources, mixture = smooth_and_rough()
    start = Start(kind="estimate", at=1 / 200, whole_chain=False)
    made = separator(start=start, first=sources.mean, level_db=-22.5)
    assert made.steps == 1
    true = sources.mean(mixture)
    error = (made(mixture) - true).norm() / true.norm()
    cold = (separator(start=Start(at=1 / 200, whole_chain=False))(mixture) - true).norm() / true.norm()
    assert float(error) < 0.1 < 0.3 < float(cold)


def test_refinement_takes_it_as_any_separator() -> None:
    sources, mixture = smooth_and_rough()
    reference = sources.mean(mixture)
    found = refine(
        separator(),
        mixture[:2],
        source=0,
        steps=1,
        search=GridSearch(3, include_estimate=True),
        quality=get_quality("si_sdr", sample_rate=8000),
        reference=reference[:2, 0],
    )
    assert found.estimate.shape == (2, 1, 100)
    assert bool((found.scores[1] >= found.scores[0]).all())


def test_a_short_chain_costs_its_share() -> None:
    made = separator()
    short = made.shortened(2)
    assert (made.steps, short.steps) == (40, 2)
    assert made.sample(smooth_and_rough()[1][:1])[1].steps == 40
    assert short.sample(smooth_and_rough()[1][:1])[1].evaluations == 4


def test_progress_is_told_of_every_level() -> None:
    told = []

    class Bar:
        def __init__(self, levels: int) -> None:
            told.append(levels)

        def __enter__(self):
            return lambda: told.append("level")

        def __exit__(self, *unused) -> None:
            told.append("closed")

    separator(progress=Bar)(smooth_and_rough()[1][:1])
    assert told == [40, *["level"] * 40, "closed"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"draws": 0}, "draws=0"),
        ({"choose": "worst"}, "choose='worst'"),
        ({"start": Start(kind="estimate")}, "start.kind='estimate'"),
        ({"first": lambda x: x}, "start.kind='mixture'"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        separator(**options)


@pytest.fixture
def priors(tmp_path: Path) -> tuple[str, str]:
    save_separator(tmp_path / "speech.safetensors", toy_prior(), prior_config())
    options = {"classes": CLASSES, "source": "sound"}
    save_separator(tmp_path / "sound.safetensors", toy_prior(seed=1, **options), prior_config(**options))
    return str(tmp_path / "speech.safetensors"), str(tmp_path / "sound.safetensors")


def test_a_prior_of_any_level_is_sampled_at_the_published_ones(tmp_path: Path, capsys) -> None:
    config = prior_config()
    config["diffusion"] = {"_target_": "models.processes.diffusion.ContinuousDiffusion"}
    path = str(tmp_path / "any.safetensors")
    save_separator(path, instantiate(config), config)
    settings = {"solver": SOLVER, "start": Start(), "levels": 5}
    device = torch.device("cpu")
    made = prior_separator([path, path], PosteriorSettings(**settings), device=device, seed=0)
    assert made.levels.signal.tolist() == DiscreteDiffusion().levels(5).signal.tolist()
    chosen = PosteriorSettings(**settings, chain=ContinuousDiffusion())
    own = prior_separator([path, path], chosen, device=device, seed=0)
    assert own.levels.signal.tolist() == ContinuousDiffusion().levels(5).signal.tolist()
    # beside one that knows some levels only, at those
    some = tmp_path / "some.safetensors"
    save_separator(some, toy_prior(), prior_config())
    both = prior_separator([path, str(some)], PosteriorSettings(**settings), device=device, seed=0)
    assert both.levels.signal.tolist() == toy_prior().diffusion.levels(5).signal.tolist()
    with pytest.raises(UserError, match="knows 20 levels of its own, not the 50 of"):
        prior_separator([str(some)] * 2, chosen, device=device, seed=0)
    assert made(0.1 * noise(1, 1, 500)).shape == (1, 2, 1, 500)
    assert made.sources == ("speech1", "speech2")


SHORT = ["--method", "diffusion_prior"]


def test_a_plain_file_of_any_length_is_separated(tmp_path: Path, priors: tuple[str, str], capsys) -> None:
    speech, sound = priors
    mixture = 0.1 * noise(1, 2, 4410)[0].T.numpy()
    soundfile.write(tmp_path / "scene.wav", mixture, 16000, subtype="FLOAT")
    out = tmp_path / "out"
    given = [
        str(tmp_path / "scene.wav"),
        "-o",
        str(out),
        *SHORT,
        "--priors",
        speech,
        f"{sound}:Flute",
        speech,
    ]
    assert run(*given, "--no-scores") == 0
    names = sorted(path.name for path in (out / "scene").iterdir())
    assert names == ["flute.wav", "speech1.wav", "speech2.wav"]
    for name in names:
        estimate, rate = soundfile.read(out / "scene" / name)
        assert (estimate.shape, rate) == ((4410, 2), 16000)
        assert float(abs(estimate).max()) > 0
    assert "in 5 segments" in capsys.readouterr().err
    # other windows, if one likes
    assert run(*given, "--no-scores", "--segment", "0.2", "--steps", "2") == 0
    assert "in 2 segments of 0.2 s" in capsys.readouterr().err
    # fewer levels, and what it would cost
    assert run(*given, "--steps", "4", "--dry-run") == 0
    assert "estimated time" in capsys.readouterr().out


def test_what_is_left_of_a_file_can_be_shared(tmp_path: Path, priors: tuple[str, str]) -> None:
    mixture = 0.1 * noise(1, 1, 2000)[0, 0].numpy()
    soundfile.write(tmp_path / "scene.wav", mixture, 8000, subtype="FLOAT")
    given = [str(tmp_path / "scene.wav"), *SHORT, "--no-scores", "--steps", "2", "--priors", *priors]

    def rest(name: str, *options: str) -> float:
        assert run(*given, "-o", str(tmp_path / name), *options) == 0
        estimates = [soundfile.read(path)[0] for path in (tmp_path / name / "scene").iterdir()]
        assert len(estimates) == 2
        return float(abs(mixture - sum(estimates)).max())

    assert rest("shared", "--set", "method.consistency=uniform") < 1e-6 < 1e-3 < rest("plain")


def test_the_shipped_priors_are_asked_by_their_names() -> None:
    settings = PosteriorSettings(solver=SOLVER, start=Start(), levels=2)
    names = ["speech", "sound", "sound:Flute"]
    made = prior_separator(names, settings, device=torch.device("cpu"), seed=0)
    assert (made.sources, made.sample_rate, made.segment_seconds) == (("speech", "sound", "flute"), 8000, 1.0)
    found = made(0.1 * noise(1, 1, 2000))
    assert bool(found.isfinite().all())
    assert found.abs().amax(dim=(0, 2, 3)).min() > 0
    with pytest.raises(UserError, match="no such file or prior; give one of sound, speech, or the path"):
        prior_separator(["speech", "music"], settings, device=torch.device("cpu"), seed=0)


def test_sources_of_different_priors_do_not_change_places(tmp_path: Path) -> None:
    for name in "ab":
        save_separator(tmp_path / f"{name}.safetensors", toy_prior(), prior_config())
    a, b = (str(tmp_path / f"{name}.safetensors") for name in "ab")
    settings = PosteriorSettings(solver=SOLVER, start=Start(), levels=2)
    made = prior_separator([a, b, a], settings, device=torch.device("cpu"), seed=0)
    assert made.sources == ("speech_a1", "speech_b", "speech_a2")
    assert exchangeable(made.sources) == [[0, 2]]


@pytest.mark.parametrize(
    ("sources", "query", "fault"),
    [
        (("speech", "noise"), "", "at 16000 Hz, the priors one at 8000 Hz; '.*sample_rate=8000' resamples"),
        (("noise", "speech"), "?sample_rate=8000", "separates noise, speech, the priors speech, flute; give"),
        (("speech", "a", "b"), "?sample_rate=8000", "separates speech, a, b, the priors"),
        (("speech", "noise"), "?sample_rate=8000", None),
    ],
)
def test_a_separator_at_the_start_fits_the_priors(
    tmp_path: Path, priors: tuple[str, str], sources: tuple[str, ...], query: str, fault: str | None
) -> None:
    uri, start = separator_file(tmp_path, "first", sources) + query, Start(kind="estimate", at=0.2)
    settings = PosteriorSettings(solver=SOLVER, start=start, levels=3, estimate=uri)
    names = [priors[0], f"{priors[1]}:Flute"]
    if fault is None:
        made = prior_separator(names, settings, device=torch.device("cpu"), seed=0)
        assert made(0.1 * noise(1, 1, 900)).shape == (1, 2, 1, 900)
        return
    with pytest.raises(UserError, match=f"method.posterior.estimate={re.escape(uri)}: .*{fault}"):
        prior_separator(names, settings, device=torch.device("cpu"), seed=0)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--priors", "{speech}"], "two or more"),
        ([], "--priors : give one for each source"),
        (["--priors", "{speech}", "nowhere.ckpt"], "--priors nowhere.ckpt: there is no such file"),
        (["--priors", "{speech}", "{sound}:Oboe"], "no class 'Oboe'; it has Bark, Flute, Gong"),
        (["--priors", "{speech}", "{speech}", "--separator", "x.ckpt"], "--separator x.ckpt"),
        (["--priors", "{speech}", "{speech}", "--steps", "21"], "the chain has 20 levels"),
        (["--priors", "{speech}", "{speech}", "--guide", "si_sdr"], "--guide=si_sdr"),
        (["--priors", "{speech}", "{speech}", "--set", "method.posterior.draws=0"], "draws=0"),
        (["--priors", "{speech}", "{speech}", "--set", "method.posterior.floor=1"], "did you mean"),
        (["--method", "one_step", "--priors", "{speech}"], "are for --method diffusion_prior"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, priors: tuple[str, str], capsys, given: list[str], fault: str
) -> None:
    soundfile.write(tmp_path / "scene.wav", noise(1, 1, 800)[0, 0].numpy(), 8000)
    given = [word.format(speech=priors[0], sound=priors[1]) for word in given]
    assert run(str(tmp_path / "scene.wav"), "-o", str(tmp_path / "out"), *SHORT, *given) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert fault in error
    assert "\n" not in error
