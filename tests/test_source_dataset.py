"""Isolated sources as training samples: where segments lie, at what level, of which class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_trees import RATE, write
from draws import check_uniform

from encore.data.source_corpora import Recording
from encore.data.source_dataset import SourceData, SourceDataset, active_segment


def recordings(folder: Path, labels: tuple[str | None, ...] = ("Bark", "Gong", None)) -> list[Recording]:
    """A second each, which sounds in its last tenth only."""
    found = []
    for number, label in enumerate(labels):
        samples = np.zeros((RATE, 1))
        samples[-RATE // 10 :] = 0.01 * np.random.default_rng(number).standard_normal((RATE // 10, 1))
        path = write(folder / f"{number}.wav", samples)
        found.append(Recording(name=str(number), path=path, label=label))
    return found


def test_segments_lie_where_a_recording_sounds(tmp_path: Path) -> None:
    dataset = SourceDataset(recordings(tmp_path), sample_rate=RATE, segment=2000)
    segments = [dataset[0, draw]["source"] for draw in range(40)]
    assert all(segment.shape == (1, 2000) for segment in segments)
    assert all(float(segment.abs().max()) > 0 for segment in segments)
    starts = [int((segment[0] != 0).int().argmax()) for segment in segments]
    # it begins anywhere in the segment that leaves some of it, and as late as the recording allows
    assert min(starts) > 1000
    assert len(set(starts)) > 10


def test_active_frames_are_drawn_in_proportion_to_their_activity() -> None:
    """A tenth at 16 times the amplitude is four times as active: 4 / 13 of all draws."""
    whole = torch.ones(1, 10_000)
    whole[:, 3000:4000] = 16
    generator = np.random.default_rng(0)
    hits = [float(active_segment(whole, 100, 100, generator).mean()) > 8 for _ in range(3000)]
    assert np.mean(hits) == pytest.approx(4 / 13, abs=0.03)


def test_shorter_recordings_lie_anywhere_between_zeros(tmp_path: Path) -> None:
    dataset = SourceDataset(recordings(tmp_path), sample_rate=RATE, segment=12_000, level_db=None)
    ends = [int(dataset[1, draw]["source"][0].nonzero().max()) for draw in range(30)]
    assert min(ends) >= RATE - 1
    assert max(ends) < 12_000
    assert len(set(ends)) > 20


def test_levels_are_uniform_over_the_range_and_silence_stays_silent(tmp_path: Path) -> None:
    files = recordings(tmp_path)
    dataset = SourceDataset(files, sample_rate=RATE, segment=2000, level_db=(-25, -20))
    levels = [10 * float(dataset[0, draw]["source"].square().mean().log10()) for draw in range(60)]
    check_uniform(levels, -25, -20)
    write(files[0].path, 1e-5 * np.ones(RATE))
    quiet = SourceDataset(files[:1], sample_rate=RATE, segment=2000)[0]["source"]
    torch.testing.assert_close(quiet, torch.full((1, 2000), 1e-5))


def test_labels_are_places_in_the_list_of_classes(tmp_path: Path) -> None:
    files = recordings(tmp_path, ("Gong", "Bark"))
    dataset = SourceDataset(files, sample_rate=RATE, segment=100, classes=["Bark", "Gong"])
    assert [dataset[place]["label"] for place in range(2)] == [1, 0]
    # without classes all is one class, with any labels
    assert SourceDataset(files, sample_rate=RATE, segment=100)[0]["label"] == 0


def test_loaders(tmp_path: Path) -> None:
    files = recordings(tmp_path, ("Bark", "Gong", "Bark", "Gong"))
    corpora = {"train": partial(list, files), "valid": partial(list, files), "limit_valid": 2}
    options = {"sample_rate": RATE, "segment_seconds": 0.25, "batch_size": 2, "classes": ["Bark", "Gong"]}
    data = SourceData(**corpora, **options)
    batch = next(iter(data.train_dataloader()))
    assert batch["source"].shape == (2, 1, 2000)
    assert batch["labels"].tolist() == [int(files[int(name)].label == "Gong") for name in batch["names"]]
    validation = list(data.val_dataloader())
    assert [batch["names"] for batch in validation] == [["0"], ["2"]]
    again = list(data.val_dataloader())
    assert all(torch.equal(a["source"], b["source"]) for a, b in zip(validation, again, strict=True))
