from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from corpus_trees import RATE, musdb, of_config, write
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from encore.data.corpora import mixed_folders, paired_folders
from encore.data.datamodule import SeparationData
from encore.data.loaders import DrawSampler, ShardSampler
from encore.data.music_corpora import song_folders

CONFIGS = Path(__file__).parents[1] / "configs" / "data"
MUSIC = ("musdb18_hq", "moisesdb", "song_folders", "stem_folders")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number in range(10):
        waveform = np.random.default_rng(number).normal(0, 0.1, (1600 + 40 * number, 1))
        for kind in ("noisy", "clean"):
            write(tmp_path / kind / f"{number:02d}.wav", waveform)
    return tmp_path


def _data(root: Path, **options: object) -> SeparationData:
    corpus = partial(paired_folders, root / "noisy", root / "clean")
    defaults: dict[str, object] = {"sample_rate": RATE, "segment_seconds": 0.1, "batch_size": 2, "seed": 3}
    return SeparationData(train=corpus, valid=corpus, test=corpus, **{**defaults, **options})


def test_a_pass_holds_every_index_once_whatever_the_epoch_size() -> None:
    for epoch_size in (3, 7, 10, 25):
        sampler = DrawSampler(10, epoch_size=epoch_size, seed=1)
        draws = []
        for epoch in range(20):
            sampler.set_epoch(epoch)
            draws += list(sampler)
        assert len(draws) == 20 * epoch_size
        for number in range(20 * epoch_size // 10):
            assert sorted(draws[10 * number : 10 * number + 10]) == [(i, number) for i in range(10)]
        assert draws[:10] != [(index, 0) for index, _ in draws[10:20]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_divide_an_epoch_in_equal_numbers_and_count_validation_items_once(world_size: int) -> None:
    whole = list(DrawSampler(10, epoch_size=6, seed=1))
    ranks = [DrawSampler(10, epoch_size=6, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [list(sampler) for sampler in ranks]
    assert {len(part) for part in parts} == {6 // world_size} == {len(sampler) for sampler in ranks}
    assert sorted(draw for part in parts for draw in part) == sorted(whole)
    shards = [ShardSampler(3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for shard in shards for index in shard) == [0, 1, 2]
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_the_seed_alone_decides_the_batches_and_global_random_numbers_stay(pairs: Path) -> None:
    before = torch.get_rng_state()
    first, again = list(_data(pairs).train_dataloader()), list(_data(pairs, num_workers=2).train_dataloader())
    other = list(_data(pairs, seed=4).train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(first, again, strict=True):
        assert one["names"] == two["names"]
        assert torch.equal(one["mixture"], two["mixture"])
    assert [batch["names"] for batch in first] != [batch["names"] for batch in other]


def test_epoch_size_sets_the_draws_and_a_corpus_below_one_batch_is_repeated(pairs: Path) -> None:
    assert len(_data(pairs, epoch_size=6).train_dataloader()) == 3
    assert len(_data(pairs, epoch_size=7).train_dataloader()) == 3
    batches = list(_data(pairs, batch_size=16).train_dataloader())
    assert [len(batch["names"]) for batch in batches] == [16]
    assert set(Counter(batches[0]["names"]).values()) == {1, 2}


def test_validation_is_whole_ordered_and_can_be_limited(pairs: Path) -> None:
    batches = list(_data(pairs).val_dataloader())
    assert [batch["names"] for batch in batches] == [[f"{n:02d}"] for n in range(10)]
    assert [batch["mixture"].shape[-1] for batch in batches] == [1600 + 40 * n for n in range(10)]
    limited = list(_data(pairs, limit_valid=3, valid_seconds=0.2).val_dataloader())
    assert [batch["names"] for batch in limited] == [["00"], ["03"], ["06"]]
    assert {batch["mixture"].shape[-1] for batch in limited} == {1600}
    tested = list(_data(pairs, limit_valid=3, valid_seconds=0.2).test_dataloader())
    assert [batch["mixture"].shape[-1] for batch in tested] == [1600 + 40 * n for n in range(10)]


def test_pools_validate_on_the_same_mixtures_in_every_run(pairs: Path) -> None:
    pools = partial(mixed_folders, {"speech": pairs / "clean", "noise": pairs / "noisy"})
    options = {"train": pools, "valid": pools, "sample_rate": RATE, "segment_seconds": 0.1, "batch_size": 2}
    runs = [SeparationData(**options, limit_valid=4, seed=seed) for seed in (0, 7)]
    valid, again, train = (
        [torch.cat([batch["mixture"] for batch in loader(run)]) for run in runs]
        for loader in (
            SeparationData.val_dataloader,
            SeparationData.val_dataloader,
            SeparationData.train_dataloader,
        )
    )
    assert [len(valid[0]), len(train[0])] == [4, 10]
    kept: Any = SeparationData(**options, snr_db=None, gain_db=[-3, 3]).train_dataloader().dataset
    assert (kept.snr_db, kept.gain_db) == (None, [-3, 3])
    assert all(torch.equal(valid[0], other) for other in (valid[1], *again))
    assert not torch.equal(*train)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Four songs for training; in that for test the vocals begin after 0.5 s."""
    musdb(tmp_path, frames=9600, leads={"vocals": 4000})
    return tmp_path


def _music(root: Path, **options: object) -> SeparationData:
    train, test = (partial(song_folders, root / split) for split in ("train", "test"))
    defaults: dict[str, object] = {"sample_rate": RATE, "segment_seconds": 0.1, "batch_size": 2}
    sources = ["vocals", "bass"]
    return SeparationData(train=train, valid=test, test=test, sources=sources, **{**defaults, **options})


def test_songs_are_mixed_for_training_only(songs: Path) -> None:
    options = {"mix": "songs", "epoch_size": 10, "gain_db": [-6, 6], "skip_silent": True}
    data = _music(songs, **options)
    batches, workers = (
        list(data.train_dataloader()),
        list(_music(songs, num_workers=2, **options).train_dataloader()),
    )
    assert [batch["references"].shape for batch in batches] == 5 * [(2, 2, 1, 800)]
    assert all(torch.equal(a["mixture"], b["mixture"]) for a, b in zip(batches, workers, strict=True))
    assert all(bool(batch["references"].flatten(2).any(2).all()) for batch in batches)
    assert len(_music(songs, mix="songs").train_dataloader()) == 2  # as many mixtures as songs
    mixed: Any = _music(songs, mix="songs", same_song=0.5, gain_db=[-6, 6]).train_dataloader().dataset
    assert (mixed.same_song, mixed.gain_db, mixed.snr_db, mixed.skip_silent) == (0.5, [-6, 6], None, False)
    (valid,) = data.val_dataloader()
    assert valid["names"] == ["Eve - Five"]
    assert valid["mixture"].shape == (1, 1, 9600)
    plain = next(iter(_music(songs).train_dataloader()))
    assert plain["names"][0] in {"Ana - One", "Bob - Two", "Cat - Three", "Dan - Four"}


def test_evaluation_can_be_cut_where_all_sources_sound_and_mixed_anew(songs: Path) -> None:
    whole = next(iter(_music(songs).test_dataloader()))
    options = {"valid_seconds": 0.25, "test_seconds": 0.5, "rebuild_mixture": True}
    for crop, places in (("start", (0, 0)), ("active", (3072, 3072))):
        data = _music(songs, crop=crop, **options)
        loaders = (data.val_dataloader(), data.test_dataloader())
        for loader, frames, start in zip(loaders, (2000, 4000), places, strict=True):
            (batch,) = loader
            assert torch.equal(batch["references"], whole["references"][..., start : start + frames])
            torch.testing.assert_close(
                batch["mixture"], whole["mixture"][..., start : start + frames], rtol=0, atol=1e-6
            )


class _Recorder(lightning.LightningModule):
    """Learns one weight and writes down what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[tuple[str, ...]] = []

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        # name and place both count: the sum tells segments apart
        self.seen.append((*batch["names"], f"{float(batch['mixture'].double().sum()):.9f}"))
        return (self.weight * batch["mixture"]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(root: Path, folder: Path, steps: int, *, checkpoint: Path | None = None, **options: object) -> list:
    model = _Recorder()
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        limit_train_batches=options.pop("limit", None),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")],
    )
    data = _data(root, **options)
    data.valid = None
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return model.seen


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_goes_on_with_the_very_next_batch(
    pairs: Path, tmp_path: Path, num_workers: int, limit: int | None
) -> None:
    whole = _fit(pairs, tmp_path / "a", 13, num_workers=num_workers, limit=limit)
    assert len(set(whole)) == 13
    for stop in (2, 5, 6, 8) if num_workers == 0 else (7,):
        rest = _fit(
            pairs,
            tmp_path / f"b{stop}",
            13,
            checkpoint=tmp_path / "a" / f"step={stop}.ckpt",
            num_workers=num_workers,
            limit=limit,
        )
        assert rest == whole[stop:], stop


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_config_needs_its_root_only(config: str, tmp_path: Path) -> None:
    of_config(config, tmp_path)
    whole = OmegaConf.create({"data": OmegaConf.load(CONFIGS / f"{config}.yaml")})
    whole.data.root, whole.data.num_workers = str(tmp_path), 0
    data = instantiate(whole.data)
    batch, valid = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert len(valid["names"]) == 1
    if config in ("vctk", "fsdkaggle2018"):
        assert batch["source"].shape == (8, 1, 64_000)
        assert valid["source"].shape == (1, 1, 64_000)
        classes, recordings = {"vctk": (0, 19), "fsdkaggle2018": (41, 9 * 41)}[config]
        assert (len(data.classes), len(data.train_dataloader().dataset)) == (classes, recordings)
        return
    batch_size, channels, segment = (4, 2, 6 * 44100) if config in MUSIC else (8, 1, 32000)
    assert batch["mixture"].shape == (batch_size, channels, segment)
    assert batch["references"].shape == (batch_size, len(data.sources), channels, segment)
    if data.test is not None:
        frames = 1600 * data.sample_rate // RATE
        assert next(iter(data.test_dataloader()))["mixture"].shape == (1, channels, frames)
