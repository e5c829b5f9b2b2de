"""The speed of training, for ``speed.py training``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

import lightning
import numpy as np
import soundfile
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from shared import faster, print_table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encore.cli.overrides import CONFIGS
from encore.data.loaders import DrawSampler

LOSSES = "encore.lightning_modules.losses"
LOSS = f"{{_target_:{LOSSES}.FixedOrder,source_loss:{{_target_:{LOSSES}.negative_si_sdr,_partial_:true}}}}"
OFF = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
Record = dict[str, Any]


def clock(base: type, seen: dict[str, list[float]]) -> Any:
    """Return a callback of either Lightning that notes wall and processor time, and loss, of every step."""

    class Clock(base):  # type: ignore[misc]
        def on_train_batch_start(self, *_: Any) -> None:
            seen["fetched"].append(time.perf_counter())

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            seen["losses"].append(float(outputs["loss"]))  # waits for a GPU, too
            seen["ended"].append(time.perf_counter())
            seen["processor"].append(time.process_time())

    return Clock()


def configuration(data: str, model: str, batch: int, seconds: float, workers: int) -> Any:
    """Return the configuration of `train.py` for what both sides train."""
    overrides = [f"data.root={data}", f"model={model}", f"data.batch_size={batch}"]
    overrides += [f"data.segment_seconds={seconds}", f"data.num_workers={workers}"]
    overrides += ["data.valid=null", "module.mixing.remix=false", "module.mixing.snr_db=null", "name=x"]
    overrides += ["module.scheduler=null", "module.optimizer.lr=1e-3", "module.optimizer.weight_decay=0"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=[*overrides, "~module/loss", f"+module.loss={LOSS}"])


class PlainSegments(Dataset[tuple[Tensor, Tensor]]):
    """Segments as asteroid's data sets read them, at the places that ours draws."""

    def __init__(self, corpus: Any) -> None:
        self.items, self.segment, self.seed = corpus.items, corpus.segment, corpus.seed
        self.lengths = [soundfile.info(item.mixture).frames for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, Tensor]:
        place, draw = index
        item, total = self.items[place], self.lengths[place]
        count = min(self.segment, total)
        start = int(np.random.default_rng([self.seed, draw, place]).integers(total - count + 1))
        files = [item.mixture, *item.references.values()]
        read = [soundfile.read(file, start=start, stop=start + count, dtype="float32")[0] for file in files]
        padded = [torch.from_numpy(np.pad(signal, (0, self.segment - count))) for signal in read]
        return padded[0], torch.stack(padded[1:])


def asteroid(config: Any) -> list[Any]:
    """Return PyTorch Lightning and asteroid's System, as its recipes build it."""
    import pytorch_lightning
    from asteroid import models
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr

    data = instantiate(config.data)
    data.setup("fit")
    corpus, batch = data.train_dataloader().dataset, config.data.batch_size
    sampler = DrawSampler(len(corpus), epoch_size=len(corpus) // batch * batch, seed=config.data.seed)
    loader = DataLoader(PlainSegments(corpus), batch, sampler=sampler, num_workers=config.data.num_workers)
    torch.manual_seed(0)
    audio = {"n_src": len(config.data.sources), "sample_rate": config.data.sample_rate}
    network = models.ConvTasNet(**audio, **config.model.options)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.module.optimizer.lr)
    loss = PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")
    return [pytorch_lightning, System(network, optimizer, loss, loader)]


def ours(config: Any) -> list[Any]:
    """Return Lightning, module and data as `train.py` builds them."""
    torch.manual_seed(0)
    separator = instantiate(config.model)
    return [lightning, instantiate(config.module)(separator=separator), instantiate(config.data)]


def fit(library: Any, *arguments: Any, steps: int, warm_up: int, device: str, precision: str) -> Record:
    """Train, and return medians over the steps that count, and all losses."""
    seen: dict[str, list[float]] = {"fetched": [], "ended": [], "processor": [], "losses": []}
    library.Trainer(
        max_steps=steps + warm_up,
        max_epochs=-1,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision,
        gradient_clip_val=5.0,
        callbacks=[clock(library.Callback, seen)],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **dict.fromkeys(OFF, False),
    ).fit(*arguments)
    ended, processor = (np.array(seen[what][warm_up - 1 :]) for what in ("ended", "processor"))
    waits = np.array(seen["fetched"][warm_up:]) - ended[:-1]
    times = {"seconds": np.diff(ended), "processor": np.diff(processor), "waits": waits}
    return {name: float(np.median(own)) for name, own in times.items()} | {"losses": seen["losses"]}


def in_process(side: str, precision: str) -> Record:
    """Train one side in a process of its own."""
    command = [sys.executable, *sys.argv, "--precisions", precision, "--side", side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the {side} side failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(name: str, records: list[Record], against: list[Record]) -> dict[str, str]:
    """Return the speed of one side, and its last losses, the same in every round."""
    ours, theirs = ([record["seconds"] for record in own] for own in (records, against))
    processor, control = (median(record["processor"] for record in own) for own in (records, against))
    return {
        "training": name,
        "steps per second": f"{1 / median(ours):.2f}",
        "faster": faster(ours, theirs),
        "CPU per step": f"{1000 * processor:.0f} ms",
        "less CPU": f"{control / processor:.2f}x",
        "waits for the loader": f"{median(record['waits'] / record['seconds'] for record in records):.1%}",
        "loss of the last ten steps": f"{np.mean(records[0]['losses'][-10:]):.2f}",
    }


def training(
    *,
    data: str = "datasets/vbd",
    model: str = "conv_tasnet_small",
    device: str = "cpu",
    precisions: tuple[str, ...] = ("32-true",),
    batch: int = 4,
    seconds: float = 2.0,
    workers: int = 2,
    steps: int = 30,
    warm_up: int = 5,
    rounds: int = 3,
    side: str | None = None,
) -> None:
    """Compare training with asteroid's own training of the same network on the same segments.

    Both sides train asteroid's ConvTasNet from equal weights on equal segments in equal order, with negative
    SI-SDR, Adam and gradient clipping: asteroid by its `System`, its loss, a plain data set that reads each
    segment with soundfile, and a `DataLoader`; ours as `train.py` does. Each side runs in processes of its
    own (``--side``), in turns; the first ``--warm-up`` steps do not count. "CPU per step" is processor time,
    which says more than the clock on a busy machine. With several ``--precisions`` ours is compared with
    itself.
    """
    if side is not None:
        built = {"asteroid": asteroid, "ours": ours}[side](
            configuration(data, model, batch, seconds, workers)
        )
        record = fit(*built, steps=steps, warm_up=warm_up, device=device, precision=precisions[0])
        return print(json.dumps(record))
    jobs = {precision: ("ours", precision) for precision in precisions}
    if len(jobs) == 1:
        jobs = {each: (each, precisions[0]) for each in ("asteroid", "ours")}
    records: dict[str, list[Record]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name in list(jobs)[:: 1 if number % 2 else -1]:
            records[name].append(in_process(*jobs[name]))
            print(f"round {number + 1}: {name} {records[name][-1]['seconds']:.3f} s a step", file=sys.stderr)
    first = next(iter(records.values()))
    print_table([row(name, own, first) for name, own in records.items()])
