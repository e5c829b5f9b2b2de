"""Priors from files: their names and classes, and infer.py from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from infer_toys import run, separator_file
from prior_toys import CLASSES, prior_config, toy_prior
from separator_toys import noise

from encore.cli.overrides import UserError
from encore.cli.prior_method import prior_separator
from encore.inference.guidance import Projection
from encore.inference.posterior import Ancestral, Start
from encore.models import load_prior
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import macs_per_second
from encore.models.processes.diffusion import ContinuousDiffusion, DiscreteDiffusion
from encore.models.types import permutation_groups

SETTINGS = {
    "solver": Ancestral(guidance=Projection()),
    "start": Start(),
    "device": torch.device("cpu"),
    "seed": 0,
}


@pytest.fixture
def priors(tmp_path: Path) -> tuple[str, str]:
    save_separator(tmp_path / "speech.safetensors", toy_prior(), prior_config())
    options = {"classes": CLASSES, "source": "sound"}
    save_separator(tmp_path / "sound.safetensors", toy_prior(seed=1, **options), prior_config(**options))
    return str(tmp_path / "speech.safetensors"), str(tmp_path / "sound.safetensors")


def test_a_prior_of_any_level_is_sampled_at_the_published_ones(tmp_path: Path, capsys) -> None:
    config = prior_config()
    config["diffusion"] = {"_target_": "encore.models.processes.diffusion.ContinuousDiffusion"}
    path = str(tmp_path / "any.safetensors")
    save_separator(path, instantiate(config), config)
    settings = SETTINGS | {"levels": 5}
    made = prior_separator([path, path], **settings)
    assert made.levels.alpha_bar.tolist() == DiscreteDiffusion().levels(5).alpha_bar.tolist()
    chosen = settings | {"chain": ContinuousDiffusion()}
    own = prior_separator([path, path], **chosen)
    assert own.levels.alpha_bar.tolist() == ContinuousDiffusion().levels(5).alpha_bar.tolist()
    # beside one that knows some levels only, at those
    some = tmp_path / "some.safetensors"
    save_separator(some, toy_prior(), prior_config())
    both = prior_separator([path, str(some)], **settings)
    assert both.levels.alpha_bar.tolist() == toy_prior().diffusion.levels(5).alpha_bar.tolist()
    with pytest.raises(UserError, match="was trained at 20 levels, not the 50 of"):
        prior_separator([str(some)] * 2, **chosen)
    assert made(0.1 * noise(1, 1, 500)).shape == (1, 2, 1, 500)
    assert made.sources == ("speech1", "speech2")


SHORT = ["--method", "diffusion_prior"]


def test_a_plain_file_of_any_length_is_separated(tmp_path: Path, priors: tuple[str, str], capsys) -> None:
    speech, sound = priors
    mixture = 0.1 * noise(1, 2, 4410)[0].T.numpy()
    soundfile.write(tmp_path / "scene.wav", mixture, 16000, subtype="FLOAT")
    out = tmp_path / "out"
    names = [speech, f"{sound}:Flute", speech]
    given = [tmp_path / "scene.wav", "-o", out, *SHORT, "--priors", *names]
    assert run(*given, "--no-scores") == 0
    written = sorted(path.name for path in (out / "scene").iterdir())
    assert written == ["flute.wav", "speech1.wav", "speech2.wav"]
    for name in written:
        estimate, rate = soundfile.read(out / "scene" / name)
        assert (estimate.shape, rate) == ((4410, 2), 16000)
        assert float(abs(estimate).max()) > 0
    assert "in 5 segments" in capsys.readouterr().err
    # other windows, if one likes
    assert run(*given, "--no-scores", "--segment", "0.2", "--steps", "2") == 0
    assert "in 2 segments of 0.2 s" in capsys.readouterr().err
    # fewer levels, and what it would cost
    assert run(*given, "--steps", "4", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "estimated time" in said
    assert "1 separator calls of 12 network evaluations each for each of 5 segments" in said
    # some of its sources cost as much
    assert run(*given, "--sources", "flute", "--steps", "4", "--dry-run") == 0
    assert "1 separator calls of 12 network evaluations each" in capsys.readouterr().out
    clean = tmp_path / "clean"
    clean.mkdir()
    soundfile.write(clean / "scene.wav", mixture, 16000)
    assert run(*given, "--sources", "flute", "--steps", "4", "--reference", str(clean)) == 0
    rows = pd.read_csv(out / "scores.csv")
    assert set(rows["item"]) == {"scene.wav"}
    facts = json.loads((out / "run.json").read_text())
    assert facts["priors"] == names
    assert facts["method"]["posterior"]["solver"]["guidance"]["schedule"]["floor"] == 0.002
    one, other = (macs_per_second(load_prior(path)) for path in (speech, sound))
    assert facts["macs_per_second"] == pytest.approx(4 * (2 * one + other))
    assert rows.set_index("kind")["evaluations"].to_dict() == {"mixture": 0, "one_step": 12}


def test_what_is_left_of_a_file_can_be_shared(tmp_path: Path, priors: tuple[str, str]) -> None:
    mixture = 0.1 * noise(1, 1, 2000)[0, 0].numpy()
    soundfile.write(tmp_path / "scene.wav", mixture, 8000, subtype="FLOAT")
    given = [str(tmp_path / "scene.wav"), *SHORT, "--no-scores", "--steps", "2", "--priors", *priors]

    def rest(name: str, *options: str) -> float:
        assert run(*given, "-o", str(tmp_path / name), *options) == 0
        estimates = [soundfile.read(path)[0] for path in (tmp_path / name / "scene").iterdir()]
        assert len(estimates) == 2
        return float(abs(mixture - sum(estimates)).max())

    assert rest("divided", "--set", "method.consistency=uniform") < 1e-6 < 1e-3 < rest("plain")


def test_the_shipped_priors_are_asked_by_their_names() -> None:
    settings = SETTINGS | {"levels": 2}
    names = ["speech", "sound", "sound:Flute"]
    made = prior_separator(names, **settings)
    assert (made.sources, made.sample_rate, made.segment_seconds) == (("speech", "sound", "flute"), 8000, 1.0)
    found = made(0.1 * noise(1, 1, 2000))
    assert bool(found.isfinite().all())
    assert found.abs().amax(dim=(0, 2, 3)).min() > 0
    with pytest.raises(UserError, match="no such file or prior; give one of sound, speech, or the path"):
        prior_separator(["speech", "music"], **settings)


def test_sources_of_different_priors_do_not_change_places(tmp_path: Path) -> None:
    for name in "ab":
        save_separator(tmp_path / f"{name}.safetensors", toy_prior(), prior_config())
    a, b = (str(tmp_path / f"{name}.safetensors") for name in "ab")
    settings = SETTINGS | {"levels": 2}
    made = prior_separator([a, b, a], **settings)
    assert made.sources == ("speech_a1", "speech_b", "speech_a2")
    assert permutation_groups(made.sources) == [[0, 2]]


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
    settings = SETTINGS | {"start": start, "levels": 3, "estimate": uri}
    names = [priors[0], f"{priors[1]}:Flute"]
    if fault is None:
        made = prior_separator(names, **settings)
        assert made(0.1 * noise(1, 1, 900)).shape == (1, 2, 1, 900)
        return
    with pytest.raises(UserError, match=f"method.posterior.estimate={re.escape(uri)}: .*{fault}"):
        prior_separator(names, **settings)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--priors", "{speech}"], "two or more with spaces between"),
        ([], "--priors is missing: give one for each source"),
        (["--priors", "{speech}", "{sound}:flute"], "no class 'flute'; use Flute"),
        (["--priors", "{speech}", "nowhere.ckpt"], "--priors nowhere.ckpt: there is no such file"),
        (["--priors", "{speech}", "{sound}:Oboe"], "no class 'Oboe'; use Bark or Flute or Gong"),
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
