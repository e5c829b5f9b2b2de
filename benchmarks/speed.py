"""Measure speed: of metrics, of options of a separator, of all networks.

    python benchmarks/speed.py metrics                     # DNSMOS against `speechmos`, PESQ in processes
    python benchmarks/speed.py options [URI ...]           # mixed precision and compiling against none
    python benchmarks/speed.py models [MODEL ...] [--time] # parameters, arithmetic, real-time factor

"faster" is the ratio of the medians of calls that take turns, in brackets the smallest and largest ratio of
one repetition. ``metrics``: DNSMOS of one clip, all scores and those of its primary network, against
`speechmos.dnsmos.run` (onnxruntime, its default threads); PESQ and STOI of a batch, in this process against
worker processes that run already. Leave OMP_NUM_THREADS unset. ``options``: in one thread, as the workers of
a refinement. ``models``: names or patterns of `configs/model`, for music by default with four sources of
stereo at 44.1 kHz, the others with one of one channel at 16 kHz; arithmetic as of `models/costs.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from omegaconf import OmegaConf
from shared import command_line, faster, in_turns, milliseconds, noisy_speech, print_table, timed
from speechmos import dnsmos as speechmos_dnsmos
from tqdm import tqdm

from encore.cli.memory import disable_malloc_trim
from encore.cli.overrides import CONFIGS
from encore.metrics import dnsmos, get_metric
from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters

OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "compiled": {"compiled": True},
    "compiled, bf16": {"precision": "bf16", "compiled": True},
}
SPEECH = {"sample_rate": 16000, "channels": 1, "sources": 1}
MUSIC = {"sample_rate": 44100, "channels": 2, "sources": 4}
FOR_MUSIC = ("hdemucs_", "bs_roformer_", "dttnet_", "spectrogram_unet_")
Rows = Iterator[dict[str, str]]


def clips(options: argparse.Namespace) -> Rows:
    """Compare DNSMOS of one clip."""
    for seconds in options.seconds:
        clip = noisy_speech(0, seconds, 16000)[0][0, 0].clamp(-1, 1)
        theirs = partial(speechmos_dnsmos.run, clip.numpy(), 16000)
        ours = partial(dnsmos, clip)
        primary = partial(ours, names=("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"))
        own, some, control = in_turns([ours, primary, theirs], options.repeats)
        expected = {f"dnsmos_{name.removesuffix('_mos')}": score for name, score in theirs().items()}
        worst = max(abs(float(score) - float(expected[name])) for name, score in ours().items())
        yield {
            "clip": f"{seconds:g} s",
            "speechmos": milliseconds(control),
            "ours, faster": faster(own, control),
            "without P.808, faster": faster(some, control),
            "scores differ by": f"{worst:.1e}" + ("" if worst <= 1e-4 else " (too much)"),
        }


def processes(options: argparse.Namespace) -> Rows:
    """Compare metrics of single signals on a batch."""
    for name, seconds in product(("pesq", "stoi", "estoi"), options.seconds):
        pairs = [noisy_speech(seed, seconds, 16000) for seed in range(options.clips)]
        signals = [torch.cat(own) for own in zip(*pairs, strict=True)]
        metrics = [get_metric(name, sample_rate=16000, workers=count) for count in (options.workers, 0)]
        elsewhere, here = (partial(metric.score, *signals) for metric in metrics)
        ours, control = in_turns([elsewhere, here], options.repeats)
        yield {
            "metric": name,
            "batch": f"{options.clips} x {seconds:g} s",
            "in this process": milliseconds(control),
            f"in {options.workers} others": milliseconds(ours),
            "faster": faster(ours, control),
            "same scores": "yes" if torch.equal(elsewhere(), here()) else "no",
        }


@torch.inference_mode()
def separator_options(options: argparse.Namespace) -> Rows:
    """Compare each option at each batch size."""
    torch.set_num_threads(1)
    for uri, name, batch in product(options.names or [None], OPTIONS, options.batches):
        plain, changed = (load_separator(uri, device=options.device) for _ in range(2))
        accelerate(changed, **OPTIONS[name])
        noise = torch.randn(batch, plain.channels, round(options.seconds[0] * plain.sample_rate))
        mixture = 0.1 * noise.to(options.device)
        first, estimates = timed(changed, mixture)
        expected = plain(mixture)
        ours, theirs = in_turns([partial(changed, mixture), partial(plain, mixture)], options.repeats)
        yield {
            "separator": type(plain).__name__,
            "option": name,
            "batch": str(batch),
            "without": milliseconds(theirs),
            "faster": faster(ours, theirs),
            "first call": f"{first:.1f} s",
            "estimates differ by": f"{float((estimates - expected).norm() / expected.norm()):.1e}",
        }


@torch.inference_mode()
def models(options: argparse.Namespace) -> Rows:
    """Count, and time, networks by their configurations."""
    files = [sorted((CONFIGS / "model").glob(f"{pattern}.yaml")) for pattern in options.names or ["*"]]
    if not all(files):
        raise SystemExit(f"error: MODEL={options.names}: give names of configs/model, or patterns of them")
    for path in (path for found in files for path in found):
        usual, seconds = MUSIC if path.stem.startswith(FOR_MUSIC) else SPEECH, options.seconds[0]
        rate, channels, sources = (getattr(options, key) or usual[key] for key in usual)
        names = [f"source{number + 1}" for number in range(sources)]
        data = {"sample_rate": rate, "channels": channels, "sources": names}
        node = OmegaConf.create({"data": data, "model": OmegaConf.load(path)})
        config: Any = OmegaConf.to_container(node.model, resolve=True)
        with torch.device("meta"):
            network = instantiate(config)
        cells = {
            "model": path.stem,
            "audio": f"{rate / 1000:g} kHz, {channels} ch., {sources} src.",
            "parameters (M)": f"{parameters(network) / 1e6:.2f}",
            "GMAC per second": f"{macs_per_second(network, seconds=seconds) / 1e9:.2f}",
        }
        if options.time:
            noise = 0.1 * torch.randn(1, channels, round(seconds * rate))
            [own] = in_turns([partial(instantiate(config).eval(), noise)], options.repeats)
            cells["real-time factor"] = f"{median(own) / seconds:.3f}"
        yield cells


SUBJECTS: dict[str, Any] = {  # the tables, and the defaults of --seconds and --repeats
    "metrics": ((clips, processes), [4.0, 5.0, 8.0, 10.0], 7),
    "options": ((separator_options,), [3.0], 15),
    "models": ((models,), [4.0], 5),
}


def main() -> None:
    """Print the tables of a subject."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("subject", choices=SUBJECTS)
    add("names", nargs="*", help="separators or models")
    add("--seconds", type=float, nargs="+", help="of the input")
    add("--repeats", type=int, help="timed calls")
    add("--device", default="cpu")
    add("--clips", type=int, default=10, help="in a batch of PESQ and STOI")
    add("--workers", type=int, default=2, help="processes for PESQ and STOI")
    add("--batches", type=int, nargs="+", default=[1, 4], help="inputs in a call, with options")
    add("--time", action="store_true", help="call the models, too")
    for name in SPEECH:
        add(f"--{name.replace('_', '-')}", type=int, help="of the models")
    options = parser.parse_args()
    tables, seconds, repeats = SUBJECTS[options.subject]
    options.seconds, options.repeats = options.seconds or seconds, options.repeats or repeats
    disable_malloc_trim()
    for table in tables:
        print_table(list(tqdm(table(options), leave=False)))


if __name__ == "__main__":
    main()
