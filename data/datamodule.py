"""Loaders for training, validation and test.

Batches are dicts: ``mixture`` (b, c, t), ``references`` (b, s, c, t), absent for items without references,
and ``names``, a list of item names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from encore.data.corpora import Item, Pool, check_choice, evenly_spaced
from encore.data.dataset import Crop, PoolDataset, Sample, SegmentDataset, pool_size
from encore.data.loaders import EVALUATION_SEED, LoaderModule
from encore.data.song_dataset import SongDataset

Corpus = Sequence[Item] | Mapping[str, Pool]
"""Items, or pools of files that are mixed on the fly."""

Samples = SegmentDataset | PoolDataset | SongDataset


class Batch(TypedDict, total=False):
    """A batch; ``references`` is absent for items without references."""

    mixture: Tensor
    references: Tensor
    names: list[str]


class SeparationData(LoaderModule):
    """Data module of a corpus of mixtures, or of sources that are mixed on the fly.

    Args:
        train: Returns the training corpus; a function of `encore.data.corpora` with its arguments bound, as
            ``_partial_: true`` does in a config. Called at set-up.
        valid: The same for validation; None for no validation.
        test: The same for test; None for no test.
        sources: Names of the references, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        segment_seconds: Length of training segments (and of all segments of pools).
        batch_size: Training segments per batch on each process.
        channels: Channels to return.
        num_workers: Worker processes; 0 reads in the training process.
        seed: Seed of order, segments and mixtures.
        epoch_size: Training draws per epoch over all processes, rounded down to whole batches; one pass
            through the corpus if None, repeated where it holds less than a batch.
        limit_valid: At most this many validation items, evenly spaced over the corpus; all if None.
        limit_test: The same for test.
        valid_seconds: Validation items are cut to this length; None for whole recordings.
        test_seconds: The same for test.
        crop: See `encore.data.dataset.SegmentDataset`, as for the next two.
        residual: A source that is the rest of the mixture.
        rebuild_mixture: Whether mixtures are the sum of all references even if recorded.
        mix: Training on items: segments of the ``"items"`` as they are, or mixtures of ``"songs"`` made on
            the fly by `encore.data.song_dataset.SongDataset`. Pools are always mixed.
        same_song: Probability that all sources of a mixture of songs are from one song at one time.
        gain_db: Range in dB of a gain of each source in mixtures of songs, and of pools with ``snr_db=None``.
        skip_silent: Whether silent segments of songs and pools are drawn again.
        snr_db: Range in dB of mixtures of pools, see `encore.data.dataset.PoolDataset`; None keeps levels.
        root: The corpus folder, ``${data.root}`` in configs; checked to exist at set-up.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        *,
        train: Callable[[], Corpus] | None = None,
        valid: Callable[[], Corpus] | None = None,
        test: Callable[[], Corpus] | None = None,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 16000,
        segment_seconds: float = 2.0,
        batch_size: int = 8,
        channels: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        epoch_size: int | None = None,
        limit_valid: int | None = None,
        limit_test: int | None = None,
        valid_seconds: float | None = None,
        test_seconds: float | None = None,
        crop: Crop = "start",
        residual: str | None = None,
        rebuild_mixture: bool = False,
        mix: Literal["items", "songs"] = "items",
        same_song: float = 0.0,
        gain_db: Sequence[float] | None = None,
        skip_silent: bool = False,
        snr_db: Sequence[float] | None = (-5.0, 15.0),
        root: str | Path | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed, root=root)
        for name, value in (
            ("segment_seconds", segment_seconds),
            ("batch_size", batch_size),
            ("epoch_size", epoch_size),
            ("limit_valid", limit_valid),
            ("limit_test", limit_test),
            ("valid_seconds", valid_seconds),
            ("test_seconds", test_seconds),
        ):
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} is not positive: give a positive number")
        check_choice("mix", mix, ("items", "songs"))
        self.train, self.valid, self.test = train, valid, test
        self.sources = tuple(sources)
        self.sample_rate = sample_rate
        self.segment = max(1, round(segment_seconds * sample_rate))
        self.max_frames = {
            stage: None if seconds is None else max(1, round(seconds * sample_rate))
            for stage, seconds in (("validate", valid_seconds), ("test", test_seconds))
        }
        self.channels, self.epoch_size = channels, epoch_size
        self.limits = {"validate": limit_valid, "test": limit_test}
        self.crop, self.residual, self.rebuild_mixture = crop, residual, rebuild_mixture
        self.mix, self.same_song, self.skip_silent = mix, same_song, skip_silent
        self.gain_db, self.snr_db = _range(gain_db), _range(snr_db)
        self._datasets: dict[str, Samples] = {}

    def setup(self, stage: str) -> None:
        """List the files of a stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``, which has none.

        Raises:
            FileNotFoundError: If ``root`` or a folder of the corpus is missing.
            ValueError: If a corpus does not match ``sources``.
        """
        self.check_root()
        if stage == "fit" and self.train is not None and "fit" not in self._datasets:
            self._datasets["fit"] = self._training_set(self.train())
        if stage in ("fit", "validate") and self.valid is not None and "validate" not in self._datasets:
            self._datasets["validate"] = self._evaluation_set(self.valid(), "validate")
        if stage == "test" and self.test is not None and "test" not in self._datasets:
            self._datasets["test"] = self._evaluation_set(self.test(), "test")

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of random segments, see `LoaderModule.drawn`."""
        dataset = self._dataset("fit", self.train)
        return self.drawn(dataset, self.epoch_size or len(dataset), collate)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Return a loader of whole recordings, see `LoaderModule.sharded`; none without corpus."""
        return [] if self.valid is None else self._evaluation_loader("validate", self.valid)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of whole recordings, see `LoaderModule.sharded`."""
        return self._evaluation_loader("test", self.test)

    def _training_set(self, corpus: Corpus) -> Samples:
        if isinstance(corpus, Mapping):
            size = self.epoch_size or pool_size(next(iter(corpus.values())))
            return self._pool_set(corpus, size, self.seed)
        if self.mix == "songs":
            size = self.epoch_size or len(corpus)
            return SongDataset(
                corpus, epoch_size=size, same_song=self.same_song, seed=self.seed, **self._mixing_options()
            )
        return self._segment_set(corpus, segment=self.segment)

    def _evaluation_set(self, corpus: Corpus, stage: str) -> Samples:
        limit = self.limits[stage]
        if isinstance(corpus, Mapping):
            return self._pool_set(corpus, limit or pool_size(next(iter(corpus.values()))), EVALUATION_SEED)
        items = [corpus[index] for index in evenly_spaced(len(corpus), limit)]
        return self._segment_set(items, max_frames=self.max_frames[stage])

    def _pool_set(self, pools: Mapping[str, Pool], size: int, seed: int) -> PoolDataset:
        return PoolDataset(pools, epoch_size=size, snr_db=self.snr_db, seed=seed, **self._mixing_options())

    def _segment_set(
        self, items: Sequence[Item], *, segment: int | None = None, max_frames: int | None = None
    ) -> SegmentDataset:
        return SegmentDataset(
            items,
            segment=segment,
            max_frames=max_frames,
            crop=self.crop,
            residual=self.residual,
            rebuild_mixture=self.rebuild_mixture,
            seed=self.seed,
            **self._audio_options(),
        )

    def _audio_options(self) -> dict[str, Any]:
        return {"sources": self.sources, "sample_rate": self.sample_rate, "channels": self.channels}

    def _mixing_options(self) -> dict[str, Any]:
        mixing = {"segment": self.segment, "gain_db": self.gain_db, "skip_silent": self.skip_silent}
        return self._audio_options() | mixing

    def _evaluation_loader(self, stage: str, corpus: Callable[[], Corpus] | None) -> DataLoader[Sample]:
        return self.sharded(self._dataset(stage, corpus), stage, collate)

    def _dataset(self, stage: str, corpus: Callable[[], Corpus] | None) -> Samples:
        if corpus is None:
            name = {"fit": "train", "validate": "valid"}.get(stage, stage)
            raise ValueError(f"{name}=None: this data has no corpus to {stage}; give data.{name}")
        self.setup(stage)
        return self._datasets[stage]


def _range(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one length, at least one, all with references or all without."""
    batch = Batch(
        mixture=torch.stack([sample["mixture"] for sample in samples]),
        names=[sample["name"] for sample in samples],
    )
    if all("references" in sample for sample in samples):
        batch["references"] = torch.stack([sample["references"] for sample in samples])
    return batch
