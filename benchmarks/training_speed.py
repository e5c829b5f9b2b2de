"""Training steps per second, against asteroid's own training of the same network on the same segments.

    python -m encore.data.synthesis voicebank_demand datasets/vbd --train 400 --test 60 --sample-rate 16000
    python benchmarks/training_speed.py [--data datasets/vbd] [--steps 30] [--rounds 3] [--ablate]
    python benchmarks/training_speed.py --device cuda --model bsrnn_medium --precisions 32-true bf16-mixed

Both sides train asteroid's ConvTasNet from equal weights on equal segments in equal order, with negative
SI-SDR, Adam and gradient clipping: asteroid by its `System`, its loss, a plain data set that reads each
segment with soundfile, and a `DataLoader` with as many workers; ours by SeparationData and SeparationModule,
as `train.py` builds them. Each side runs in processes of its own, in turns, so noise hits both; the first
`--warm-up` steps do not count. `--ablate` leaves out one by one what ours has, to see what each thing buys.

"CPU per step" is processor time of the training process: on a busy machine it says more than the clock. With
several `--precisions` ours is compared with itself. Given `--peak-tflops` of the GPU, the last column is the
share of its peak that the multiplications of the network reach.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import soundfile
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encore.cli.memory import keep_freed_memory
from encore.cli.overrides import CONFIGS
from encore.data.loaders import DrawSampler
from encore.models.costs import macs_per_second
from encore.models.separators import asteroid as asteroid_separators
from encore.reporting.tables import to_markdown

PARTS = {
    "norms": "global layer norm in one kernel",
    "malloc": "freed memory kept",
    "fused": "fused Adam",
}
LOSS = (
    "{_target_:encore.lightning_modules.losses.FixedOrder,source_loss:"
    "{_target_:encore.lightning_modules.losses.negative_si_sdr,_partial_:true}}"
)
Record = dict[str, Any]


def clock(base: type, options: argparse.Namespace, seen: dict[str, list[Any]]) -> Any:
    """A callback of either Lightning that notes wall and processor time, and loss, of every step."""

    class Clock(base):  # type: ignore[misc]
        def on_train_batch_start(self, *_: Any) -> None:
            seen["fetched"].append(time.perf_counter())

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            seen["losses"].append(float(outputs["loss"]))  # waits for a GPU, too
            seen["ended"].append(time.perf_counter())
            seen["processor"].append(time.process_time())

    return Clock()


def configuration(options: argparse.Namespace) -> Any:
    """What both sides train, in the words of `train.py`."""
    overrides = [
        f"data.root={options.data}",
        f"model={options.model}",
        f"data.batch_size={options.batch}",
        f"data.segment_seconds={options.seconds}",
        f"data.num_workers={options.workers}",
        "data.valid=null",
        "module.mixing.remix=false",
        "module.mixing.snr_db=null",
        "module.scheduler=null",
        "module.optimizer.lr=1e-3",
        "module.optimizer.weight_decay=0",
        "~module/loss",
        f"+module.loss={LOSS}",
        "name=x",
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=overrides)


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


def asteroid(options: argparse.Namespace) -> Record:
    """Train with asteroid's System, as its recipes do."""
    import pytorch_lightning
    from asteroid import models
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr

    config = configuration(options)
    data = instantiate(config.data)
    data.setup("fit")
    corpus = data.train_dataloader().dataset
    epoch_size = len(corpus) // options.batch * options.batch
    loader = DataLoader(
        PlainSegments(corpus),
        sampler=DrawSampler(len(corpus), epoch_size=epoch_size, seed=config.data.seed),
        batch_size=options.batch,
        num_workers=options.workers,
    )
    torch.manual_seed(0)
    network = models.ConvTasNet(
        n_src=len(config.data.sources), sample_rate=config.data.sample_rate, **config.model.options
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=config.module.optimizer.lr)
    loss = PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")
    return fit(pytorch_lightning, options, System(network, optimizer, loss, loader))


def ours(options: argparse.Namespace) -> Record:
    """Train as `train.py` does."""
    if "malloc" not in options.without:
        keep_freed_memory()
    if "norms" in options.without:
        asteroid_separators._fuse_norms = lambda network: None
    config = configuration(options)
    config.module.optimizer.fused = "fused" not in options.without
    torch.manual_seed(0)
    separator = instantiate(config.model)
    module = instantiate(config.module)(separator=separator)
    record = fit(lightning, options, module, instantiate(config.data))
    return record | {"macs": macs_per_second(separator)}


def fit(library: Any, options: argparse.Namespace, *arguments: Any) -> Record:
    """Train, and return what was seen of the steps that count."""
    seen: dict[str, list[Any]] = {"fetched": [], "ended": [], "processor": [], "losses": []}
    trainer = library.Trainer(
        max_steps=options.steps + options.warm_up,
        max_epochs=-1,
        accelerator="gpu" if options.device == "cuda" else "cpu",
        devices=1,
        precision=options.precisions[0],
        gradient_clip_val=5.0,
        callbacks=[clock(library.Callback, options, seen)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(*arguments)
    first = options.warm_up
    ended = np.array(seen["ended"][first - 1 :])
    return {
        "seconds": np.diff(ended).tolist(),
        "processor": np.diff(seen["processor"][first - 1 :]).tolist(),
        "waits": (np.array(seen["fetched"][first:]) - ended[:-1]).tolist(),
        "losses": seen["losses"],
    }


def run(side: str, options: list[str]) -> Record:
    """One side in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), *options, "--side", side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the {side} side failed: {done.stderr[-2000:]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


def in_turns(runs: dict[str, Callable[[], Record]], rounds: int) -> dict[str, list[Record]]:
    """Every run in every round, in another order each time."""
    records: dict[str, list[Record]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            records[name].append(runs[name]())
            print(f"round {number + 1}: {name} {middle(records[name], 'seconds'):.3f} s", file=sys.stderr)
    return records


def middle(records: list[Record], what: str) -> float:
    """Median over all steps of all rounds."""
    return statistics.median(value for record in records for value in record[what])


def row(name: str, records: list[Record], against: list[Record], options: argparse.Namespace) -> Record:
    """What is printed of one side."""
    ratios = [
        middle([their], "seconds") / middle([our], "seconds")
        for our, their in zip(records, against, strict=True)
    ]
    found = {
        "training": name,
        "steps per second": f"{1 / middle(records, 'seconds'):.2f}",
        "faster": f"{middle(against, 'seconds') / middle(records, 'seconds'):.2f}x"
        f" ({min(ratios):.2f} to {max(ratios):.2f})",
        "CPU per step": f"{1000 * middle(records, 'processor'):.0f} ms",
        "less CPU": f"{middle(against, 'processor') / middle(records, 'processor'):.2f}x",
        "waits for the loader": f"{100 * middle(records, 'waits') / middle(records, 'seconds'):.1f} %",
    }
    if options.peak_tflops and "macs" in records[0]:
        # a multiplication and an addition, once forwards and twice backwards
        work = 6 * records[0]["macs"] * options.batch * options.seconds
        share = work / middle(records, "seconds") / (1e12 * options.peak_tflops)
        found["share of peak"] = f"{100 * share:.1f} %"
    return found


def loss_rows(records: dict[str, list[Record]]) -> list[Record]:
    """Mean loss of every ten steps, the same in every round."""
    table = []
    for name, own in records.items():
        losses = own[0]["losses"]
        parts = {
            f"{n + 1} to {n + 10}": f"{np.mean(losses[n : n + 10]):.2f}" for n in range(0, len(losses), 10)
        }
        table.append({"mean loss of steps": name} | parts)
    return table


def main() -> None:
    """Let the sides train in turns, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="datasets/vbd")
    parser.add_argument("--model", default="conv_tasnet_small")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precisions", nargs="+", default=["32-true"], help="several: ours in each of them")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ablate", action="store_true", help="also ours without each of its parts")
    parser.add_argument("--without", nargs="*", default=[], choices=list(PARTS))
    parser.add_argument("--side", choices=["asteroid", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.side:
        print(json.dumps({"asteroid": asteroid, "ours": ours}[options.side](options)))
        return
    given = sys.argv[1:]
    runs: dict[str, Callable[[], Record]]
    if len(options.precisions) > 1:
        runs = {p: partial(run, "ours", [*given, "--precisions", p]) for p in options.precisions}
    else:
        runs = {"asteroid": partial(run, "asteroid", given), "ours": partial(run, "ours", given)}
        for part in PARTS if options.ablate else ():
            runs[f"ours without {PARTS[part]}"] = partial(run, "ours", [*given, "--without", part])
    records = in_turns(runs, options.rounds)
    first = next(iter(records.values()))
    print(to_markdown(pd.DataFrame([row(name, own, first, options) for name, own in records.items()])))
    print()
    print(to_markdown(pd.DataFrame(loss_rows(records))))


if __name__ == "__main__":
    main()
