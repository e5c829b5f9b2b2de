"""Samples of a prior in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from prior_toys import CLASSES
from test_prior_module import module, source_data
from toys import toy_trainer

from encore.callbacks.prior_samples import PriorSamples
from encore.inference.gaussian_sources import GaussianSources


def test_samples_are_written_and_logged_when_training_ends(tmp_path: Path) -> None:
    trained = module()
    callback = PriorSamples(count=4, seconds=0.1)
    trainer = toy_trainer(tmp_path, max_steps=2, callbacks=[callback])
    trainer.fit(trained, source_data(tmp_path))
    folder = tmp_path / "prior_samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "0000002.png",
        *(f"0000002_{number}_{(CLASSES * 2)[number]}.wav" for number in range(4)),
    ]
    waveform, rate = soundfile.read(folder / "0000002_1_Flute.wav")
    assert (waveform.shape, rate) == ((800,), 8000)
    assert (folder / "0000002.png").stat().st_size > 10_000
    # each of its class, all with the seed's noise
    again = callback._draw(trained.prior, [0, 1, 2, 0], torch.device("cpu"))
    torch.testing.assert_close(again[1, 0], torch.from_numpy(waveform).float(), atol=1e-5, rtol=0)


def test_the_level_is_that_of_what_the_prior_knows(tmp_path: Path) -> None:
    """The ideal denoiser of a Gaussian source samples that source."""
    source = GaussianSources(0.01 * torch.eye(800, dtype=torch.float64)[None])
    trained = module()
    trained.prior.forward = lambda state, alpha_bar, labels: source.priors[0](state.double(), alpha_bar).to(
        state
    )
    trainer = toy_trainer(tmp_path, max_steps=1, callbacks=[PriorSamples(count=4, seconds=0.1)])
    values = {}
    trainer.callbacks[0].measure, plain = (
        lambda *given: values.update(plain(*given)) or values,
        (trainer.callbacks[0].measure),
    )
    trainer.fit(trained, source_data(tmp_path))
    # the noise of ancestral sampling over 20 levels is a little too small
    assert values["val/prior/level_db"] == pytest.approx(-20, abs=1.0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"count": 0}, "count=0"),
        ({"seconds": 0.0}, r"seconds=0\.0"),
        ({"every_n_epochs": -1}, "every_n_epochs=-1"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        PriorSamples(**options)
