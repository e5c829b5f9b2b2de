"""The data module of separators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(kw_only=True, eq=False, repr=False)
class SeparationData(CorpusModule):
    """Data module of a corpus of mixtures, or of sources that are mixed on the fly.

    Args:
        sources: Names of the references, in the order of the source axis.
        channels: Channels to return.
        limit_test: At most this many test items, as ``limit_valid``.
        valid_seconds: Validation items are cut to this length; None for whole recordings.
        test_seconds: The same for test.
        crop: See `encore.data.dataset.SegmentDataset`, as for the next two.
        residual: A source that is the rest of the mixture.
        rebuild_mixture: Whether mixtures are the sum of all references even if recorded.
        mix: Training on items: segments of the ``"items"`` as they are, or mixtures of ``"songs"`` made on
            the fly. Pools are always mixed, for evaluation as well.
        same_song: See `encore.data.mixing_dataset.MixingDataset`, as for the next three.
        gain_db: Range in dB of a gain of each source in mixtures of songs, and of pools with ``snr_db=None``.
        skip_silent: Whether silent segments of songs and pools are drawn again.
        snr_db: Range in dB of mixtures of pools; None keeps levels.
        **others: Of `CorpusModule`; corpora are items or pools.

    Raises:
        ValueError: If a number is not positive.
    """

    sources: Sequence[str] = ("speech",)
    channels: int = 1
    limit_test: int | None = None
    valid_seconds: float | None = None
    test_seconds: float | None = None
    crop: Crop = "start"
    residual: str | None = None
    rebuild_mixture: bool = False
    mix: Literal["items", "songs"] = "items"
    same_song: float = 0.0
    gain_db: tuple[float, float] | None = None
    skip_silent: bool = False
    snr_db: tuple[float, float] | None = (-5.0, 15.0)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_positive(self, "limit_test", "valid_seconds", "test_seconds")
        check_choice("mix", self.mix, ("items", "songs"))
        self.sources = tuple(self.sources)

    def dataset(self, corpus: Corpus, stage: str) -> DrawnDataset:
        """Return random segments or mixtures for training, whole recordings or fixed mixtures else."""
        audio: dict[str, Any] = {
            "sources": self.sources,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
        }
        fit = stage == "fit"
        limit = {"fit": None, "validate": self.limit_valid, "test": self.limit_test}[stage]
        if isinstance(corpus, Mapping) or (self.mix == "songs" and fit):
            return MixingDataset(
                corpus,
                segment=self.segment,
                epoch_size=self.epoch_size if fit else limit,
                snr_db=self.snr_db if isinstance(corpus, Mapping) else None,
                gain_db=self.gain_db,
                same_song=self.same_song,
                skip_silent=self.skip_silent,
                seed=self.seed if fit else EVALUATION_SEED,
                **audio,
            )
        seconds = {"validate": self.valid_seconds, "test": self.test_seconds}.get(stage)
        return SegmentDataset(
            [corpus[index] for index in evenly_spaced(len(corpus), limit)],
            segment=self.segment if fit else None,
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
