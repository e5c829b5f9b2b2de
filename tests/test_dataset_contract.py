"""What holds for every data set: samples are functions of seed, draw and index; mistakes are one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_trees import RATE, write

from encore.data.corpora import Item
from encore.data.datamodule import SeparationData
from encore.data.dataset import DrawnDataset, SegmentDataset
from encore.data.mixing_dataset import MixingDataset
from encore.data.source_corpora import Recording
from encore.data.source_dataset import SourceData, SourceDataset

COMMON: dict[str, Any] = {"sample_rate": RATE, "segment": 300}
segments = partial(SegmentDataset, **COMMON, sources=["speech"])
mixtures = partial(MixingDataset, **COMMON, sources=["speech"])
sources = partial(SourceDataset, **COMMON)


def item(name: str, mixture: Path | None = None, **references: Any) -> Item:
    return Item(name=name, mixture=mixture, references=references)


def of_kind(kind: str, files: list[Path], seed: int) -> DrawnDataset:
    """Three samples a pass."""
    if kind == "segments":
        return segments([item(file.stem, file, speech=file) for file in files], seed=seed)
    if kind == "sources":
        return sources([Recording(name=file.stem, path=file, label=None) for file in files], seed=seed)
    pools = {"speech": files, "noise": files}
    songs = [item(file.stem, speech=file, noise=files[0]) for file in files]
    corpus = {"pools": pools, "songs": songs}[kind]
    return mixtures(corpus, gain_db=(-6, 6), same_song=0.5, seed=seed)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = [key for key, value in one.items() if isinstance(value, torch.Tensor)]
    return all(torch.equal(one[key], other[key]) for key in keys)


@pytest.mark.parametrize("kind", ["segments", "pools", "songs", "sources"])
def test_a_sample_depends_on_seed_draw_and_index_alone(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [write(tmp_path / f"{n}.wav", 0.1 * rng.standard_normal((2000, 1))) for n in range(3)]
    first, again, other = (of_kind(kind, files, seed) for seed in (7, 7, 8))
    assert len(first) == 3
    again[1, 5]  # what was drawn before must not matter
    for index in range(3):
        assert equal(first[index, 3], again[index, 3])
    assert equal(first[0], first[0, 0])
    for sample in (first[0, 4], other[0, 3], first[1, 3]):
        assert not equal(first[0, 3], sample)
    with pytest.raises(IndexError):
        first[3]


FILE = Path("a.wav")
FULL = item("full", FILE, speech=FILE)
SONG = item("song", vocals=FILE)
POOLS = {"speech": [FILE], "noise": [FILE]}
SPEAKERS = {"p0": [FILE], "p1": [FILE]}
REBUILT = {"rebuild_mixture": True, "residual": "b"}
TWO_LEVELS = {"gain_db": (-6, 6), "snr_db": (0, 9)}
RECORDINGS = [Recording(name="a", path=FILE, label="Bark")]


@pytest.mark.parametrize(
    ("make", "corpus", "options", "message"),
    [
        (segments, [], {}, "items is empty"),
        (segments, [FULL], {"sources": []}, "sources is empty"),
        (segments, [FULL, item("blind", FILE)], {}, "only one of 'blind' and 'full' has refer"),
        (segments, [FULL], {"sources": ["a"]}, r"'full' has no reference 'a'; it has \['speech'\].*residual"),
        (segments, [item("full", speech=FILE)], {"residual": "noise"}, "'full' has no mixture"),
        (segments, [FULL], {"segment": 0}, "segment=0 is not positive"),
        (segments, [FULL], {"sample_rate": 0}, "sample_rate=0 is not positive"),
        (segments, [FULL], {"crop": "loudest"}, "crop='loudest' is unknown: use one of start, active"),
        (segments, [FULL], REBUILT, "rebuild_mixture=True leaves nothing for residual='b'"),
        (mixtures, POOLS, TWO_LEVELS, r"gain_db=\(-6, 6\) and snr_db=\(0, 9\) both set levels"),
        (mixtures, POOLS, {"gain_db": (6.0, -6.0)}, r"gain_db=\(6.0, -6.0\) is reversed"),
        (mixtures, POOLS, {"snr_db": (5.0, 0.0)}, r"snr_db=\(5.0, 0.0\) is reversed"),
        (
            mixtures,
            POOLS,
            {"sources": ["a"]},
            r"\['a'\] are not in the corpus, which has \['speech', 'noi",
        ),
        (mixtures, POOLS, {"sources": []}, "sources is empty"),
        (mixtures, POOLS, {"segment": 0}, "segment=0 is not positive"),
        (mixtures, POOLS, {"epoch_size": 0}, "epoch_size=0 is not positive"),
        (mixtures, POOLS, {"same_song": 1.5}, "same_song=1.5: give a probability from 0 to 1"),
        (mixtures, {**POOLS, "noise": []}, {}, r"pools has no files for \['noise'\]"),
        (mixtures, {"speaker1": {"p0": [], "p1": []}}, {}, r"pools has no files for \['speaker1'\]"),
        (mixtures, {"a": SPEAKERS, "b": {"p0": [FILE]}}, {}, "'b' has 1 speakers, but a mixture needs 2 of"),
        (mixtures, [], {}, "items is empty"),
        (mixtures, [SONG], {}, r"sources: \['speech'\] are not in the corpus, which has \['vocals'\]"),
        (mixtures, [SONG, item("odd", bass=FILE)], {}, r"'odd' has references \['bass'\], 'song' has \['voc"),
        (mixtures, [item("silent", vocals=())], {}, r"no song has a recording of \['vocals'\]"),
        (sources, [], {}, "recordings is empty"),
        (sources, RECORDINGS, {"segment": 0}, "segment=0 is not positive"),
        (sources, RECORDINGS, {"level_db": (-20.0, -25.0)}, r"level_db=\(-20\.0, -25\.0\) is reversed"),
        (sources, RECORDINGS, {"classes": ["Gong"]}, r"classes: \['Bark'\] occur"),
    ],
)
def test_a_mistake_is_one_line(
    make: Callable[..., DrawnDataset], corpus: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(corpus, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", [SeparationData, SourceData])
def test_options_and_folders_of_data_modules(module: type[Any], tmp_path: Path) -> None:
    options = {"batch_size": 0, "segment_seconds": -1.0, "limit_valid": 0, "epoch_size": 0}
    if module is SeparationData:
        options |= {"test_seconds": 0, "limit_test": 0}
        with pytest.raises(ValueError, match="mix='pools' is unknown: use one of items, songs"):
            module(mix="pools")
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"{name}={value} is not positive"):
            module(**{name: value})
    with pytest.raises(ValueError, match=r"train=None.*give data\.train"):
        module().train_dataloader()
    assert module().val_dataloader() == []
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder: point data\.root"):
        module(root=tmp_path / "nowhere").setup("fit")
