"""The data module of separators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from encore.data.corpora import Item, Pool, check_choice, evenly_spaced
from encore.data.dataset import Crop, DrawnDataset, Sample, SegmentDataset, check_positive
from encore.data.loaders import EVALUATION_SEED, CorpusModule
from encore.data.mixing_dataset import MixingDataset

Corpus = Sequence[Item] | Mapping[str, Pool]
"""Items, or pools of files that are mixed on the fly."""


class Batch(TypedDict, total=False):
    """``mixture`` (b, c, t), ``references`` (b, s, c, t), absent for items without references, and names."""

    mixture: Tensor
    references: Tensor
    names: list[str]


class SeparationData(CorpusModule):
    """Data module of a corpus of mixtures, or of sources that are mixed on the fly.

    Args:
        train: See `CorpusModule`, as for ``valid``, ``test``, ``batch_size``, ``num_workers``, ``seed``,
            ``epoch_size`` and ``root``. Corpora are items or pools.
        valid: For validation.
        test: For test.
        sources: Names of the references, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        segment_seconds: Length of training segments (and of all segments of pools).
        batch_size: Of training.
        channels: Channels to return.
        num_workers: Worker processes.
        seed: Seed of order, segments and mixtures.
        epoch_size: Training draws per epoch.
        limit_valid: At most this many validation items, evenly spaced over the corpus; all if None.
        limit_test: The same for test.
        valid_seconds: Validation items are cut to this length; None for whole recordings.
        test_seconds: The same for test.
        crop: See `encore.data.dataset.SegmentDataset`, as for the next two.
        residual: A source that is the rest of the mixture.
        rebuild_mixture: Whether mixtures are the sum of all references even if recorded.
        mix: Training on items: segments of the ``"items"`` as they are, or mixtures of ``"songs"`` made on
            the fly. Pools are always mixed.
        same_song: See `encore.data.mixing_dataset.MixingDataset`, as for the next three.
        gain_db: Range in dB of a gain of each source in mixtures of songs, and of pools with ``snr_db=None``.
        skip_silent: Whether silent segments of songs and pools are drawn again.
        snr_db: Range in dB of mixtures of pools; None keeps levels.
        root: The corpus folder, ``${data.root}`` in configs.

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
        super().__init__(
            train,
            valid,
            test,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            epoch_size=epoch_size,
            root=root,
        )
        check_positive(
            segment_seconds=segment_seconds,
            limit_valid=limit_valid,
            limit_test=limit_test,
            valid_seconds=valid_seconds,
            test_seconds=test_seconds,
        )
        check_choice("mix", mix, ("items", "songs"))
        self.sources, self.sample_rate, self.channels = tuple(sources), sample_rate, channels
        self.segment = max(1, round(segment_seconds * sample_rate))
        self.seconds = {"validate": valid_seconds, "test": test_seconds}
        self.limits = {"validate": limit_valid, "test": limit_test}
        self.crop, self.residual, self.rebuild_mixture = crop, residual, rebuild_mixture
        self.mix, self.same_song, self.skip_silent = mix, same_song, skip_silent
        self.gain_db, self.snr_db = _range(gain_db), _range(snr_db)

    def dataset(self, corpus: Corpus, stage: str) -> DrawnDataset:
        """Return random segments or mixtures for training, whole recordings or fixed mixtures else."""
        audio: dict[str, Any] = {
            "sources": self.sources,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
        }
        if isinstance(corpus, Mapping) or (self.mix == "songs" and stage == "fit"):
            return MixingDataset(
                corpus,
                segment=self.segment,
                epoch_size=self.epoch_size if stage == "fit" else self.limits[stage],
                snr_db=self.snr_db if isinstance(corpus, Mapping) else None,
                gain_db=self.gain_db,
                same_song=self.same_song,
                skip_silent=self.skip_silent,
                seed=self.seed if stage == "fit" else EVALUATION_SEED,
                **audio,
            )
        seconds = self.seconds.get(stage)
        return SegmentDataset(
            [corpus[index] for index in evenly_spaced(len(corpus), self.limits.get(stage))],
            segment=self.segment if stage == "fit" else None,
            max_frames=None if seconds is None else max(1, round(seconds * self.sample_rate)),
            crop=self.crop,
            residual=self.residual,
            rebuild_mixture=self.rebuild_mixture,
            seed=self.seed,
            **audio,
        )

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples of one length, at least one, all with references or all without."""
        batch = Batch(
            mixture=torch.stack([sample["mixture"] for sample in samples]),
            names=[sample["name"] for sample in samples],
        )
        if all("references" in sample for sample in samples):
            batch["references"] = torch.stack([sample["references"] for sample in samples])
        return batch


def _range(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))
