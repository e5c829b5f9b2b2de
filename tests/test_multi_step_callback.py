from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from toys import toy_data, toy_module, toy_trainer

from encore.callbacks.multi_step_inference import MultiStepInference
from encore.data.audio import read_audio
from encore.data.audio_writing import write_audio
from encore.data.datamodule import SeparationData
from encore.data.music_corpora import song_folders
from encore.inference import GridSearch, RefineOptions, refine
from encore.lightning_modules.losses import PermutationInvariant, negative_snr
from encore.lightning_modules.separation import SeparationModule
from encore.metrics import get_metric, oracle, si_sdr
from encore.reporting.examples import read_examples
from encore.reporting.scores import read_scores

METRICS = ["si_sdr", "snr", "stoi"]


def methods() -> dict[str, RefineOptions]:
    search = GridSearch(3, include_estimate=True, steps=2)
    return {
        "si_sdr": RefineOptions(search=search, guide="si_sdr"),
        "short": RefineOptions(search=torch.tensor([0.5, 0.1])),
    }


def fit(
    corpus: Path, folder: Path, callback: MultiStepInference, trained: SeparationModule, **options: Any
) -> lightning.Trainer:
    trainer = toy_trainer(folder, **{"callbacks": [callback], **options})
    trainer.fit(trained, toy_data(corpus))
    return trainer


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SeparationModule]:
    """A run without any logger that max_steps cuts in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("run")
    trained = toy_module()
    fit(corpus, folder, MultiStepInference(methods(), metrics=METRICS), trained)
    return folder, trained


def test_every_item_guide_step_and_metric_has_one_row(run: tuple[Path, SeparationModule]) -> None:
    scores = read_scores(run[0] / "scores.parquet")
    counts = scores.groupby(["method", "kind"]).size().to_dict()
    # three validation items, three metrics; steps 0, 1, 2 for both guides
    assert counts == {
        ("none", "mixture"): 9,
        ("none", "one_step"): 9,
        ("short", "fixed"): 27,
        ("si_sdr", "oracle"): 27,
    }
    assert set(scores["item"]) == {"p226_001", "p226_002", "p287_001"}


def test_scores_are_those_of_refine_itself(run: tuple[Path, SeparationModule], corpus: Path) -> None:
    folder, trained = run
    scores = read_scores(folder / "scores.parquet")
    loader = toy_data(corpus)
    loader.setup("validate")
    for batch in loader.val_dataloader():
        reference = batch["references"][:, 0]
        expected = refine(
            trained.separator,
            batch["mixture"],
            oracle(get_metric("si_sdr", sample_rate=16000), batch["references"]),
            GridSearch(3, include_estimate=True, steps=2),
        )
        rows = scores[(scores["item"] == batch["names"][0]) & (scores["metric"] == "si_sdr")]
        guided = rows[rows["kind"] == "oracle"].sort_values("step")
        assert guided["value"].tolist() == pytest.approx(expected.scores[:, 0].tolist(), rel=1e-5)
        assert (guided["evaluations"] == int(expected.evaluations[0])).all()
        assert rows["input_si_sdr"].tolist() == pytest.approx(
            [si_sdr(batch["mixture"], reference).item()] * len(rows), rel=1e-5
        )


def test_curves_and_examples_are_written(run: tuple[Path, SeparationModule]) -> None:
    folder = run[0] / "multi_step"
    names = {path.name for path in folder.iterdir()}
    assert {"scores.md", *(f"score_versus_step_{metric}.png" for metric in ("si_sdr", "stoi"))} <= names
    scores = read_scores(run[0] / "scores.parquet").query("metric == 'si_sdr'")
    refined = scores[(scores["kind"] == "oracle") & (scores["step"] == 2)].set_index("item")["value"]
    gains = refined - scores[scores["kind"] == "one_step"].set_index("item")["value"]
    listed = read_examples(folder)
    assert [example.item for example in listed] == list(gains.sort_values(kind="stable").index[[2, 1, 0]])
    for example in listed:
        signals = {name: read_audio(folder / file)[0] for name, file in example.audio.items()}
        assert list(signals) == ["mixture", "one step", "refined", "reference"]
        reference = signals["reference"][None]
        # the toy's refined estimates are a few steps of 16 bits only
        assert si_sdr(signals["one step"][None], reference).item() == pytest.approx(
            example.scores["one step"], abs=0.1
        )
        assert not torch.equal(signals["one step"], signals["refined"])


def test_the_results_are_printed_when_training_ends(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(corpus, tmp_path, MultiStepInference(methods(), metrics=["snr"]), toy_module(), max_steps=1)
    printed = capsys.readouterr().out
    assert (tmp_path / "multi_step" / "scores.md").read_text() in printed
    assert "Guided by the references" in printed


@pytest.mark.parametrize(("every", "steps", "expected"), [(2, 7, [4, 7]), (1, 2, [2])])
def test_runs_every_n_epochs_and_once_at_the_end(
    every: int, steps: int, expected: list[int], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches an epoch: epochs end at 2, 4, 6, and max_steps cuts the last one."""
    callback, run_at = MultiStepInference(methods(), metrics=["snr"], every_n_epochs=every, items=1), []
    measure = callback.measure
    monkeypatch.setattr(callback, "measure", lambda t, m: run_at.append(t.global_step) or measure(t, m))
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = fit(corpus, tmp_path, callback, toy_module(), max_steps=steps, logger=logger)
    assert run_at == expected
    logged = pd.read_csv(tmp_path / "metrics.csv")
    key = "val/multi_step/si_sdr_oracle/snr"
    assert logged[key].notna().sum() == len(expected)
    assert key in trainer.callback_metrics  # a checkpoint callback can monitor it
    names = {name.removeprefix("val/multi_step/") for name in logged if name.startswith("val/multi_step/")}
    shared = ("snr", "gain", "calls", "seconds")
    guided = {f"si_sdr_oracle/{name}" for name in (*shared, "ratio", "kept")}
    assert names == guided | {f"short/{name}" for name in shared}
    assert {"val/one_step/snr", "val/mixture/snr"} <= set(logged.columns)
    scores = read_scores(tmp_path / "scores.parquet")
    refined = scores[(scores["kind"] == "oracle") & (scores["step"] > 0)]
    last = logged[logged[key].notna()].iloc[-1]
    assert last["val/multi_step/si_sdr_oracle/kept"] == pytest.approx(refined["ratio"].isna().mean())
    assert last["val/multi_step/si_sdr_oracle/ratio"] == pytest.approx(refined["ratio"].mean())
    once = scores[scores["kind"] == "one_step"]["value"].mean()
    assert last["val/multi_step/si_sdr_oracle/gain"] == pytest.approx(last[key] - once, abs=1e-5)


def test_the_averaged_weights_are_scored(corpus: Path, tmp_path: Path) -> None:
    """The average starts at the first step's weights and hardly moves after that; the weights do."""
    raw, seen = [], []

    class Peek(MultiStepInference):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            raw.append(module.separator.gain.item())

        def measure(self, trainer: Any, module: Any) -> dict[str, float]:
            seen.append(module.separator.gain.item())
            return super().measure(trainer, module)

    peek = Peek(methods(), metrics=["snr"], every_n_epochs=1, items=1)
    averaging = EMAWeightAveraging(decay=0.9999)
    fit(corpus, tmp_path, peek, toy_module(rate=0.1), max_steps=3, callbacks=[averaging, peek])
    assert seen == pytest.approx([raw[0], raw[0]], rel=1e-2)
    assert abs(raw[-1] - raw[0]) > 0.1 * abs(raw[0])


class Halves(nn.Module):
    """Two speakers: the louder part of every sample goes to one that the item's first sample decides."""

    sources, sample_rate, channels = ("speaker1", "speaker2"), 16000, 1

    def forward(self, mixture: Tensor) -> Tensor:
        parts = torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1) + 0.05 * mixture[:, None]
        return parts.flip(1) if mixture[0, 0, 100] > 0 else parts


def speakers(corpus: Path) -> SeparationData:
    """Items whose speakers are the upper and the lower half of their waveforms, in turn."""
    for number, path in enumerate(sorted((corpus / "clean_trainset_28spk_wav").glob("*.wav"))[:4]):
        waveform, rate = read_audio(path)
        halves = [waveform.clamp_min(0), waveform.clamp_max(0)][:: 1 if number % 2 else -1]
        for name, part in zip(("mixture", *Halves.sources), (waveform, *halves), strict=True):
            write_audio(corpus / "speakers" / str(number) / f"{name}.wav", part, rate)
    items = partial(song_folders, corpus / "speakers", Halves.sources)
    return SeparationData(train=items, valid=items, sources=Halves.sources, batch_size=2)


def test_speakers_are_refined_together_and_scored_in_the_order_of_their_references(
    corpus: Path, tmp_path: Path
) -> None:
    search = GridSearch(3, include_estimate=True, steps=2)
    options = {
        "moved": RefineOptions(search=search, guide="si_sdr", consistency="uniform"),
        "si_sdr": RefineOptions(search=search, guide="si_sdr"),
    }
    callback = MultiStepInference(options, metrics=["si_sdr"])
    trained = SeparationModule(
        Halves(),
        PermutationInvariant(negative_snr),
        optimizer=lambda _: torch.optim.SGD([nn.Parameter(torch.ones(1))]),
    )
    data = speakers(corpus)
    trainer = toy_trainer(tmp_path, callbacks=[callback], max_steps=1)
    trainer.validate(trained, data)
    trainer.datamodule = data
    callback.measure(trainer, trained)
    scores = read_scores(tmp_path / "scores.parquet")
    one_step = scores[scores["kind"] == "one_step"].set_index("item")["value"]
    assert len(one_step) == 4
    for batch in data.val_dataloader():
        estimates, references = trained.separator(batch["mixture"]), batch["references"]
        best = max(si_sdr(own, references).mean().item() for own in (estimates, estimates.flip(1)))
        assert one_step[batch["names"][0]] == pytest.approx(best, rel=1e-4)
        assert best > 15
    refined = scores[scores["kind"] == "oracle"].set_index(["method", "item", "step"])["value"]
    for guide, item in itertools.product(("moved", "si_sdr"), one_step.index):
        assert refined[guide, item, 2] >= refined[guide, item, 1] >= refined[guide, item, 0]
    written = {path.stem.rpartition("_")[2] for path in (tmp_path / "multi_step").glob("*.flac")}
    assert {"speaker1", "speaker2", "mixture"} <= written
