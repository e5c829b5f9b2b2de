"""What every configured network costs: parameters, arithmetic, and time on this machine if asked for.

    python benchmarks/model_costs.py [MODEL ...] [--sample-rate HZ] [--channels N] [--sources N]
                                     [--seconds 4] [--time] [--repeats 5] [-o FILE]

One row per file of `configs/model`, or per name of one (`bsrnn_tiny`, or a pattern, `'bsrnn_*'`). Without
other options, networks for music are built for four sources of stereo at 44.1 kHz, the others for one source
of one channel at 16 kHz. Arithmetic is counted on an input of `--seconds`, without data, as
`models/costs.py` says: Fourier transforms, normalisation and activations are left out. `--time` really
evaluates each network on noise, a batch of one: the real-time factor is the median time of a call per second
of audio, below 1 is faster than playback. Large networks take minutes then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters
from encore.reporting.tables import to_markdown

CONFIGS = Path(__file__).parents[1] / "configs" / "model"
SPEECH = {"sample_rate": 16000, "channels": 1, "sources": 1}
MUSIC = {"sample_rate": 44100, "channels": 2, "sources": 4}
FOR_MUSIC = ("hdemucs_", "bs_roformer_", "dttnet_", "spectrogram_unet_")


def config_files(names: list[str]) -> list[Path]:
    """The configurations of the given names or patterns, of all without one."""
    files: list[Path] = []
    for name in names or ["*"]:
        found = sorted(CONFIGS.glob(f"{name.removesuffix('.yaml')}.yaml"))
        if not found:
            known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
            raise ValueError(f"MODEL={name!r} is no file of configs/model: known are {known}")
        files += found
    return files


def audio(name: str, options: argparse.Namespace) -> dict[str, int]:
    """Rate, channels and number of sources that a network is built for."""
    usual = MUSIC if name.startswith(FOR_MUSIC) else SPEECH
    given = {key: getattr(options, key) for key in usual}
    return {key: usual[key] if value is None else value for key, value in given.items()}


def resolved(path: Path, sample_rate: int, channels: int, sources: int) -> dict[str, Any]:
    """A model configuration, for some audio."""
    data = {
        "sources": [f"source{number + 1}" for number in range(sources)],
        "sample_rate": sample_rate,
        "channels": channels,
    }
    node = OmegaConf.create({"data": data, "model": OmegaConf.load(path)})
    return OmegaConf.to_container(node, resolve=True)["model"]


def real_time_factor(config: dict[str, Any], seconds: float, repeats: int) -> float:
    """Median time of one call per second of audio, after one call that does not count."""
    separator = instantiate(config).eval()
    noise = 0.1 * torch.randn(1, config["channels"], round(seconds * config["sample_rate"]))
    times = []
    with torch.inference_mode():
        separator(noise)
        for _ in range(repeats):
            start = time.perf_counter()
            separator(noise)
            times.append(time.perf_counter() - start)
    return statistics.median(times) / seconds


def row(path: Path, options: argparse.Namespace) -> dict[str, str]:
    """What one network costs."""
    described = audio(path.stem, options)
    config = resolved(path, **described)
    with torch.device("meta"):
        separator = instantiate(config)
    cells = {
        "model": path.stem,
        "audio": f"{described['sample_rate'] / 1000:g} kHz, {described['channels']} ch., "
        f"{described['sources']} src.",
        "parameters (M)": f"{parameters(separator) / 1e6:.2f}",
        "GMAC per second": f"{macs_per_second(separator, seconds=options.seconds) / 1e9:.2f}",
    }
    if options.time:
        cells["real-time factor"] = f"{real_time_factor(config, options.seconds, options.repeats):.3f}"
    return cells


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names or patterns; without one, all")
    parser.add_argument("--sample-rate", type=int, help="Hz; 44100 for music, else 16000")
    parser.add_argument("--channels", type=int, help="2 for music, else 1")
    parser.add_argument("--sources", type=int, help="4 for music, else 1")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the input")
    parser.add_argument("--time", action="store_true", help="evaluate the networks, too")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls")
    parser.add_argument("-o", "--out", type=Path, help="Markdown file to write too")
    options = parser.parse_args()
    try:
        files = config_files(options.models)
    except ValueError as error:
        parser.error(str(error))
    table = to_markdown(pd.DataFrame([row(path, options) for path in tqdm(files, leave=False)]))
    if options.time:
        print(f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads in torch\n")
    print(table)
    if options.out is not None:
        options.out.write_text(table + "\n")


if __name__ == "__main__":
    main()
