"""Samplers, and the base of the data modules, for several processes and interrupted runs.

Lightning's ``use_distributed_sampler`` pads validation sets with duplicates. The samplers here shard by rank
themselves, and Lightning does not replace them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from encore.data.dataset import DrawnDataset, Index, check_positive

EVALUATION_SEED = 2**31 - 1
"""Seed of validation and test mixtures: independent of the run's seed, so that runs compare, and another
stream than training's, or equal folders would give equal mixtures."""


@dataclass(eq=False, repr=False)
class DrawSampler(DistributedSampler[Index]):
    """Endless passes through a corpus, cut into epochs and split among ranks; yields ``(index, pass)``.

    Each pass is a new permutation of all indices, and an epoch continues where the previous one ended, so
    ``epoch_size`` may be smaller or larger than the corpus. A rank gets ``epoch_size // world_size`` draws.

    Args:
        length: Items of the corpus.
        epoch_size: Draws per epoch, of all ranks together.
        seed: Seed of the permutations.
        rank: This process.
        world_size: Number of processes.
        epoch: The epoch that iteration yields.
        skip: An epoch and the number of its draws to skip on this rank, where an interrupted run resumes.

    Note:
        Lightning calls `set_epoch`; other loops must, or every epoch is the first.
    """

    # a DistributedSampler by type only, which Lightning does not replace
    length: int
    _: KW_ONLY
    epoch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    skip: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return self.epoch_size // self.world_size

    def __iter__(self) -> Iterator[Index]:
        first = self.epoch * self.epoch_size
        positions = range(first + self.rank, first + len(self) * self.world_size, self.world_size)
        skipped = self.skip[1] if self.skip[0] == self.epoch else 0
        current, order = -1, torch.empty(0)
        for position in positions[skipped:]:
            draw, offset = divmod(position, self.length)
            if draw != current:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
                current, order = draw, torch.randperm(self.length, generator=generator)
            yield int(order[offset]), draw


@dataclass(eq=False, repr=False)
class ShardSampler(DistributedSampler[int]):
    """Every ``world_size``-th index from ``rank`` on: each item once over all ranks, without padding.

    Args:
        length: Items of the set.
        rank: This process.
        world_size: Number of processes.
    """

    length: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.length, self.world_size))


@dataclass(kw_only=True, eq=False, repr=False)
class CorpusModule(LightningDataModule):
    """Base of the data modules: lists corpora at set-up, and makes loaders of their samples.

    Args:
        train: Returns the training corpus; a function that lists a corpus with its arguments bound, as
            ``_partial_: true`` does in a config. Called at set-up.
        valid: The same for validation; None for no validation.
        test: The same for test; None for no test.
        sample_rate: Rate in Hz to resample to.
        segment_seconds: Length of training segments.
        batch_size: Training samples per batch on each process.
        epoch_size: Training draws per epoch over all processes, rounded down to whole batches; one pass
            through the corpus if None, repeated where it holds less than a batch.
        limit_valid: At most this many validation items, evenly spaced over the corpus; all if None.
        num_workers: Worker processes; 0 reads in the training process.
        seed: Seed of the order and of all training samples.
        root: The corpus folder, ``${data.root}`` in configs; checked to exist at set-up.

    Raises:
        ValueError: If a number is not positive.
    """

    train: Callable[[], Any] | None = None
    valid: Callable[[], Any] | None = None
    test: Callable[[], Any] | None = None
    sample_rate: int = 16000
    segment_seconds: float = 2.0
    batch_size: int = 8
    epoch_size: int | None = None
    limit_valid: int | None = None
    num_workers: int = 0
    seed: int = 0
    root: str | Path | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__init__()
        check_positive(self, "segment_seconds", "batch_size", "epoch_size", "limit_valid")
        self._datasets: dict[str, DrawnDataset] = {}

    @property
    def segment(self) -> int:
        """Length of training segments in samples."""
        return max(1, round(self.segment_seconds * self.sample_rate))

    @abstractmethod
    def dataset(self, corpus: Any, stage: str) -> DrawnDataset:
        """Return the samples of a corpus for a stage: ``"fit"``, ``"validate"`` or ``"test"``."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """Make a batch of samples, at least one."""

    def setup(self, stage: str) -> None:
        """List the files of a stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``, which has none.

        Raises:
            FileNotFoundError: If ``root`` or a folder of the corpus is missing.
            ValueError: If a corpus does not match the options.
        """
        if self.root is not None and not Path(self.root).expanduser().is_dir():
            raise FileNotFoundError(f"{self.root} is not a folder: point data.root at the corpus")
        corpora = {"fit": self.train, "validate": self.valid, "test": self.test}
        for part in ("fit", "validate") if stage == "fit" else (stage,):
            corpus = corpora.get(part)
            if corpus is not None and part not in self._datasets:
                self._datasets[part] = self.dataset(corpus(), part)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of random segments: equally many full batches, at least one, on every process."""
        dataset = self._set_up("fit", "train")
        rank, world_size = self._rank_and_world_size()
        batches = max(1, (self.epoch_size or len(dataset)) // (self.batch_size * world_size))
        sampler = DrawSampler(
            len(dataset),
            epoch_size=batches * self.batch_size * world_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        if self.trainer is not None:
            # a resumed Lightning continues its count of batches but would read the epoch's first ones again,
            # and makes its iterator before it sets the sampler's epoch
            limit = self.trainer.limit_train_batches
            per_epoch = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
            trained = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()["total"]["processed"]
            sampler.epoch, done = divmod(trained, max(1, per_epoch))
            sampler.skip = (sampler.epoch, done * self.batch_size)
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return a loader of every sample once over all processes, one per batch; none without corpus."""
        return [] if self.valid is None else self._evaluation_loader("validate", "valid")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return a loader of every sample once over all processes, one per batch."""
        return self._evaluation_loader("test", "test")

    def _evaluation_loader(self, stage: str, corpus: str) -> DataLoader[Any]:
        dataset = self._set_up(stage, corpus)
        rank, world_size = self._rank_and_world_size()
        if len(dataset) < world_size:
            raise ValueError(
                f"{len(dataset)} {stage} items cannot be split among {world_size} processes: "
                "use fewer devices or a larger limit"
            )
        return self._loader(dataset, ShardSampler(len(dataset), rank=rank, world_size=world_size), 1)

    def _set_up(self, stage: str, corpus: str) -> DrawnDataset:
        if getattr(self, corpus) is None:
            raise ValueError(f"{corpus}=None: this data has no corpus to {stage}; give data.{corpus}")
        self.setup(stage)
        return self._datasets[stage]

    def _loader(
        self, dataset: DrawnDataset, sampler: DrawSampler | ShardSampler, batch_size: int
    ) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=self.collate,
            # a loader draws its workers' seeds, here and not from the global stream of the training
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
