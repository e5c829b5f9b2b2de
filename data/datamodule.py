"""Loaders for training, validation and test, on one process or many.

Batches are dicts: ``mixture`` (b, c, t), ``references`` (b, s, c, t), absent for items without references,
and ``names``, a list of item names. Lightning's own ``use_distributed_sampler`` pads validation sets with
duplicates; the samplers here shard by rank themselves and Lightning leaves them alone, whether that option
is on or off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from data.corpora import Item, Pool, check_choice, spread
from data.dataset import Crop, Index, PoolDataset, Sample, SegmentDataset, pool_size
from data.song_dataset import SongDataset

Corpus = Sequence[Item] | Mapping[str, Pool]
"""What a function of :mod:`data.corpora` returns: items, or pools of files that are mixed on the fly."""


Samples = SegmentDataset | PoolDataset | SongDataset

_EVALUATION_SEED = 2**31 - 1
"""Of mixtures made for validation and test: the same whatever the run's seed, so that runs compare, and
another stream than training's, or equal folders would give equal mixtures."""


class Batch(TypedDict, total=False):
    """What the loaders yield; ``references`` is absent for items without references."""

    mixture: Tensor
    references: Tensor
    names: list[str]


class DrawSampler(DistributedSampler[Index]):
    """Endless passes through a corpus, cut into epochs and shared among ranks; yields ``(index, pass)``.

    Each pass is a permutation of its own that holds every index once, and an epoch takes up where the
    previous one ended, so ``epoch_size`` may be smaller or larger than the corpus. Every rank gets
    ``epoch_size // world_size`` draws.

    Args:
        length: Items of the corpus.
        epoch_size: Draws per epoch, of all ranks together.
        seed: Seed of the permutations.
        rank: This process.
        world_size: Number of processes.

    Attributes:
        epoch: The epoch that iteration yields.
        skip: An epoch and how many of its draws to leave out on this rank: where an interrupted run goes on.

    Note:
        Lightning calls :meth:`set_epoch`; a loop of your own must, or every epoch is the first.
    """

    def __init__(
        self, length: int, *, epoch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        # A DistributedSampler by type only: it is what Lightning does not replace.
        self.length = length
        self.epoch_size = epoch_size
        self.seed = seed
        self.rank = rank
        self.num_replicas = world_size
        self.epoch = 0
        self.skip = (0, 0)

    def __len__(self) -> int:
        return self.epoch_size // self.num_replicas

    def __iter__(self) -> Iterator[Index]:
        first = self.epoch * self.epoch_size
        positions = range(first + self.rank, first + len(self) * self.num_replicas, self.num_replicas)
        skipped = self.skip[1] if self.skip[0] == self.epoch else 0
        current, order = -1, torch.empty(0)
        for position in positions[skipped:]:
            draw, place = divmod(position, self.length)
            if draw != current:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
                current, order = draw, torch.randperm(self.length, generator=generator)
            yield int(order[place]), draw


class ShardSampler(DistributedSampler[int]):
    """Every ``world_size``-th index from ``rank`` on, in order: over all ranks each item once, none padded.

    Args:
        length: Items of the set.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, length: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.rank = rank
        self.num_replicas = world_size
        self.epoch = 0

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.length, self.num_replicas))


class SeparationData(LightningDataModule):
    """A corpus as loaders.

    Args:
        train: Returns the training corpus when called; a function of :mod:`data.corpora` with its arguments
            bound, as ``_partial_: true`` does in a config. Called at set-up, not before.
        valid: The same for validation; None for no validation.
        test: The same for test; None for no test.
        sources: Names of the references, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        segment_seconds: Length of training segments (and of all segments of pools).
        batch_size: Training segments per batch on each process.
        channels: Channels to return.
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of order, segments and mixtures.
        epoch_size: Training draws per epoch over all processes, rounded down to whole batches; one pass
            through the corpus if None, repeated where it holds less than a batch.
        limit_valid: At most this many validation items, evenly spread over the corpus; all if None.
        limit_test: The same for test.
        valid_seconds: Validation items are cut to this length; None for whole recordings.
        test_seconds: The same for test.
        crop: Where these are cut, ``"start"`` or ``"active"``, see :class:`data.dataset.SegmentDataset`.
        residual: A source taken as the rest of the mixture, see there.
        rebuild_mixture: Whether mixtures are the sum of all references even if recorded, see there.
        mix: What training on items is: segments of the ``"items"`` as they are, or mixtures of
            ``"songs"`` made on the fly by :class:`data.song_dataset.SongDataset`. Pools are always mixed.
        same_song: Share of mixtures of songs with all sources from one song at one time, see there.
        gain_db: Range in dB of a gain of each source in mixtures of songs, and of pools with ``snr_db=None``.
        skip_silent: Whether silent segments of songs and pools are drawn anew.
        snr_db: Range in dB of mixtures of pools, see :class:`data.dataset.PoolDataset`; None keeps levels.
        root: The corpus folder that a config refers to as ``${data.root}``; checked to exist at set-up.

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
        super().__init__()
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
        self.batch_size, self.channels, self.num_workers = batch_size, channels, num_workers
        self.seed, self.epoch_size = seed, epoch_size
        self.limits = {"validate": limit_valid, "test": limit_test}
        self.crop, self.residual, self.rebuild_mixture = crop, residual, rebuild_mixture
        self.mix, self.same_song, self.skip_silent = mix, same_song, skip_silent
        self.gain_db, self.snr_db = _range(gain_db), _range(snr_db)
        self.root = None if root is None else Path(root).expanduser()
        self._datasets: dict[str, Samples] = {}

    def setup(self, stage: str) -> None:
        """List the files that a stage needs.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``, which needs none.

        Raises:
            FileNotFoundError: If ``root`` or a folder of the corpus is missing.
            ValueError: If a corpus does not fit ``sources``.
        """
        if self.root is not None and not self.root.is_dir():
            raise FileNotFoundError(f"{self.root} is not a folder: point data.root at the corpus")
        if stage == "fit" and self.train is not None and "fit" not in self._datasets:
            self._datasets["fit"] = self._training_set(self.train())
        if stage in ("fit", "validate") and self.valid is not None and "validate" not in self._datasets:
            self._datasets["validate"] = self._evaluation_set(self.valid(), "validate")
        if stage == "test" and self.test is not None and "test" not in self._datasets:
            self._datasets["test"] = self._evaluation_set(self.test(), "test")

    def train_dataloader(self) -> DataLoader[Sample]:
        """Random segments, shuffled; every process gets the same number of full batches, at least one."""
        dataset = self._dataset("fit", self.train)
        rank, world_size = self._place()
        batches = max(1, (self.epoch_size or len(dataset)) // (self.batch_size * world_size))
        sampler = DrawSampler(
            len(dataset),
            epoch_size=batches * self.batch_size * world_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        if self.trainer is not None:
            # A resumed Lightning counts on from the last batch but would read the epoch's first ones again,
            # and makes its iterator before it tells the sampler the epoch.
            limit = self.trainer.limit_train_batches
            per_epoch = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
            trained = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()["total"]["processed"]
            sampler.epoch, done = divmod(trained, max(1, per_epoch))
            sampler.skip = (sampler.epoch, done * self.batch_size)
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Whole recordings, one a batch, each once over all processes; none without a validation corpus."""
        return [] if self.valid is None else self._evaluation_loader("validate", self.valid)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Whole recordings, one a batch, each once over all processes."""
        return self._evaluation_loader("test", self.test)

    def _training_set(self, corpus: Corpus) -> Samples:
        if isinstance(corpus, Mapping):
            size = self.epoch_size or pool_size(next(iter(corpus.values())))
            return self._pool_set(corpus, size, self.seed)
        if self.mix == "songs":
            return self._song_set(corpus)
        return self._segment_set(corpus, segment=self.segment)

    def _evaluation_set(self, corpus: Corpus, stage: str) -> Samples:
        limit = self.limits[stage]
        if isinstance(corpus, Mapping):
            return self._pool_set(corpus, limit or pool_size(next(iter(corpus.values()))), _EVALUATION_SEED)
        items = [corpus[place] for place in spread(len(corpus), limit)]
        return self._segment_set(items, max_frames=self.max_frames[stage])

    def _pool_set(self, pools: Mapping[str, Pool], size: int, seed: int) -> PoolDataset:
        return PoolDataset(
            pools,
            sources=self.sources,
            sample_rate=self.sample_rate,
            channels=self.channels,
            segment=self.segment,
            epoch_size=size,
            snr_db=self.snr_db,
            gain_db=self.gain_db,
            skip_silent=self.skip_silent,
            seed=seed,
        )

    def _song_set(self, songs: Sequence[Item]) -> SongDataset:
        return SongDataset(
            songs,
            sources=self.sources,
            sample_rate=self.sample_rate,
            channels=self.channels,
            segment=self.segment,
            epoch_size=self.epoch_size or len(songs),
            same_song=self.same_song,
            gain_db=self.gain_db,
            skip_silent=self.skip_silent,
            seed=self.seed,
        )

    def _segment_set(
        self, items: Sequence[Item], *, segment: int | None = None, max_frames: int | None = None
    ) -> SegmentDataset:
        return SegmentDataset(
            items,
            sources=self.sources,
            sample_rate=self.sample_rate,
            channels=self.channels,
            segment=segment,
            max_frames=max_frames,
            crop=self.crop,
            residual=self.residual,
            rebuild_mixture=self.rebuild_mixture,
            seed=self.seed,
        )

    def _evaluation_loader(self, stage: str, corpus: Callable[[], Corpus] | None) -> DataLoader[Sample]:
        dataset = self._dataset(stage, corpus)
        rank, world_size = self._place()
        if len(dataset) < world_size:
            raise ValueError(
                f"{len(dataset)} {stage} items cannot be shared among {world_size} processes: "
                "use fewer devices or a larger limit"
            )
        return self._loader(dataset, ShardSampler(len(dataset), rank=rank, world_size=world_size), 1)

    def _dataset(self, stage: str, corpus: Callable[[], Corpus] | None) -> Samples:
        if corpus is None:
            name = {"fit": "train", "validate": "valid"}.get(stage, stage)
            raise ValueError(f"{name}=None: this data has no corpus to {stage}; give data.{name}")
        self.setup(stage)
        return self._datasets[stage]

    def _loader(
        self, dataset: Dataset[Sample], sampler: DrawSampler | ShardSampler, batch_size: int
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            # the samples need no global random numbers, but a loader draws its workers' seeds; from here,
            # not from the stream that the training sees
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _range(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one length.

    Args:
        samples: At least one, all with references or all without.

    Returns:
        ``mixture`` (b, c, t), ``references`` (b, s, c, t) if the samples have them, and ``names``.
    """
    batch = Batch(
        mixture=torch.stack([sample["mixture"] for sample in samples]),
        names=[sample["name"] for sample in samples],
    )
    if all("references" in sample for sample in samples):
        batch["references"] = torch.stack([sample["references"] for sample in samples])
    return batch
