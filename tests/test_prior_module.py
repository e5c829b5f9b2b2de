"""Training of source priors: what the loss is, what is logged, loaded again and sampled."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import soundfile
import torch
from corpus_trees import of_config, write
from gaussian_sources import GaussianSources
from lightning.pytorch.callbacks import ModelCheckpoint
from prior_toys import CLASSES, prior_config, toy_prior
from separator_toys import noise
from torch import Tensor
from toys import Shrink, toy_trainer
from train_toys import train

from encore.callbacks.prior_samples import PriorSamples
from encore.cli.overrides import CONFIGS
from encore.data.source_corpora import Recording
from encore.data.source_dataset import SourceData
from encore.lightning_modules.prior import PriorModule
from encore.models import load_prior
from encore.models.checkpoint import load_checkpoint, save_separator
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.processes.diffusion import ContinuousDiffusion


def module(prior: DiffusionPrior | None = None, **options) -> PriorModule:
    prior = prior or toy_prior(classes=CLASSES)
    prior.requires_grad_(True)
    return PriorModule(prior, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3), **options)


def source_data(folder: Path) -> SourceData:
    files = []
    for number, label in enumerate((*CLASSES, *CLASSES)):
        waveform = 0.1 * noise(1, 4000, seed=number).cumsum(-1).sin()
        path = write(folder / f"{number}.wav", waveform.T.numpy())
        files.append(Recording(name=str(number), path=path, label=label))
    corpora = {"train": lambda: files, "valid": lambda: files[:2], "classes": CLASSES}
    return SourceData(**corpora, sample_rate=8000, segment_seconds=0.1, batch_size=3)


class Run(NamedTuple):
    folder: Path
    module: PriorModule
    before: float
    metrics: dict[str, float]
    labels: Tensor


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Thirty steps, with samples at the end and a checkpoint of step 27."""
    folder, trained, seen = tmp_path_factory.mktemp("prior"), module(label_dropout=0.25), []
    trained.hparams["model"] = prior_config(classes=CLASSES)
    plain = trained.prior.network.forward
    kept = ModelCheckpoint(folder, "{step}", every_n_train_steps=27, save_top_k=-1)
    options = {"callbacks": [PriorSamples(count=4, seconds=0.1), kept], "enable_checkpointing": True}
    trainer, data = toy_trainer(folder, max_steps=30, **options), source_data(folder)
    trainer.validate(trained, data, verbose=False)
    before = float(trainer.callback_metrics["val/loss"])

    def watched(state: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(labels)
        return plain(state, level, labels)

    trained.prior.network.forward = watched
    trainer.fit(trained, data)
    trained.prior.network.forward = plain
    trainer.save_checkpoint(folder / "last.ckpt")
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Run(folder, trained, before, metrics, torch.cat(seen))


def test_training_lowers_the_loss_which_is_the_mean_over_levels(run: Run) -> None:
    assert run.metrics["val/loss"] < 0.8 * run.before
    levels = sorted(name for name in run.metrics if name.startswith("val/loss_level"))
    assert levels == [f"val/loss_level{percent:03d}" for percent in (0, 16, 26, 42, 58, 74, 84, 100)]
    mean = sum(run.metrics[name] for name in levels) / 8
    assert run.metrics["val/loss"] == pytest.approx(mean, rel=1e-5)


def test_the_checkpoint_is_the_prior(run: Run) -> None:
    loaded = load_prior(run.folder / "last.ckpt")
    assert (loaded.classes, loaded.sample_rate, loaded.source) == (tuple(CLASSES), 8000, "speech")
    state, level = noise(1, 1, 500), loaded.diffusion.levels().alpha_bar[[5]]
    torch.testing.assert_close(loaded(state, level), run.module.prior.eval()(state, level))


def test_labels_are_dropped_as_often_as_wanted(run: Run) -> None:
    assert float((run.labels == len(CLASSES)).float().mean()) == pytest.approx(0.25, abs=0.12)


def test_a_resumed_run_draws_what_it_would_have_drawn(run: Run, tmp_path: Path) -> None:
    rest = module(toy_prior(seed=7, classes=CLASSES), label_dropout=0.25)
    trainer = toy_trainer(tmp_path, max_steps=30)
    trainer.fit(rest, source_data(tmp_path), ckpt_path=run.folder / "step=27.ckpt")
    for name, value in run.module.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[name], value)


def test_samples_are_written_when_training_ends(run: Run) -> None:
    names = [path.name for path in (run.folder / "prior_samples").iterdir()]
    expected = (f"0000030_{number}_{(CLASSES * 2)[number]}.flac" for number in range(4))
    assert sorted(names) == ["0000030.png", *expected]
    waveform, rate = soundfile.read(run.folder / "prior_samples" / "0000030_1_Flute.flac")
    assert (waveform.shape, rate) == ((800,), 8000)
    assert (run.folder / "prior_samples" / "0000030.png").stat().st_size > 10_000
    # each of its class, all with the seed's noise
    again = PriorSamples(count=4, seconds=0.1)._draw(run.module.prior, [0, 1, 2, 0], torch.device("cpu"))
    torch.testing.assert_close(again[1, 0], torch.from_numpy(waveform).float(), atol=1e-4, rtol=0)


def test_the_level_of_samples_is_that_of_the_source() -> None:
    """The ideal denoiser of a Gaussian source samples that source."""
    source, trained = GaussianSources(0.01 * torch.eye(800, dtype=torch.float64)[None]), module()
    ideal = source.priors[0]
    trained.prior.forward = lambda state, alpha_bar, labels: ideal(state.double(), alpha_bar).to(state)
    trainer = SimpleNamespace(fast_dev_run=False, is_global_zero=False)
    values = PriorSamples(count=4, seconds=0.1).measure(trainer, trained)
    # the noise of ancestral sampling over 20 levels is a little too small
    assert values["val/prior/level_db"] == pytest.approx(-20, abs=1.0)


@pytest.mark.parametrize("diffusion", [None, ContinuousDiffusion()])
def test_the_loss_is_the_squared_error_of_the_output(diffusion) -> None:
    """A perfect network has none; one that gives 0 has the mean square of what it should give."""
    prior = toy_prior()
    if diffusion is not None:
        prior.diffusion = diffusion
    trained = module(prior)
    source = 0.07 * noise(4, 1, 2000)
    alpha_bar = prior.diffusion.draw(4, torch.Generator().manual_seed(0))
    drawn = noise(4, 1, 2000, seed=1)
    target = prior.target(prior.add_noise(source, alpha_bar, drawn), alpha_bar, source)
    prior.network.forward = lambda state, level, labels: target
    assert float(trained._losses(source, alpha_bar, None, drawn).abs().max()) < 1e-10
    prior.network.forward = lambda state, level, labels: torch.zeros_like(state)
    found = trained._losses(source, alpha_bar, None, drawn)
    torch.testing.assert_close(found, target.square().mean(dim=(1, 2)))
    if diffusion is None:
        torch.testing.assert_close(target, drawn, atol=1e-4, rtol=1e-3)
    # and with the perfect output the estimate is the source
    prior.network.forward = lambda state, level, labels: target
    state = prior.add_noise(source, alpha_bar, drawn)
    torch.testing.assert_close(prior(state, alpha_bar), source, atol=1e-4, rtol=0)


def test_estimates_are_clamped_and_the_limit_can_be_lifted() -> None:
    prior, loud = toy_prior(), 50 * noise(1, 1, 300)
    alpha_bar = prior.diffusion.levels().alpha_bar[[3]]
    assert float(prior(loud, alpha_bar).abs().max()) == 1
    prior.limit = None
    assert float(prior(loud, alpha_bar).abs().max()) > 10


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    prior = partial(DiffusionPrior, toy_prior().network, toy_prior().diffusion)
    for wrong, fault in (
        (lambda: PriorModule(Shrink(), optimizer=torch.optim.Adam), "model=Shrink"),
        (lambda: module(label_dropout=1.5), r"label_dropout=1\.5"),
        (lambda: PriorSamples(count=0), "count=0"),
        (lambda: PriorSamples(seconds=0.0), r"seconds=0\.0"),
        (lambda: PriorSamples(every_n_epochs=-1), "every_n_epochs=-1"),
        (lambda: prior(8000, classes=["a"]), "classes has 1 names"),
        (lambda: prior(0), "sample_rate=0"),
    ):
        with pytest.raises(ValueError, match=fault):
            wrong()
    save_separator(tmp_path / "prior.safetensors", toy_prior(), prior_config())
    assert isinstance(load_checkpoint(tmp_path / "prior.safetensors"), DiffusionPrior)
    with pytest.raises(ValueError, match="no diffusion prior"):
        load_prior(CONFIGS.parent / "models" / "shipped" / "speech.safetensors")


@pytest.mark.parametrize(("experiment", "data"), [("prior_speech", "vctk"), ("prior_sound", "fsdkaggle2018")])
def test_the_experiments_run_a_fast_dev_run(experiment: str, data: str, tmp_path: Path) -> None:
    of_config(data, tmp_path / "corpus")
    done = train(
        tmp_path,
        *(f"experiment={experiment}", "data.root=corpus", "model=prior_tiny", "data.segment_seconds=0.1"),
        *("data.num_workers=0", "data.batch_size=1", "module.scheduler.warmup=1"),
        *("trainer.fast_dev_run=true", "name=run"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "outputs" / "run" / "run.json").read_text())
    assert 7e5 < record["parameters"] < 9e5
