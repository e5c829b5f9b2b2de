"""Time of guided sampling with all sources of a prior in one call, over one call a source.

    python benchmarks/prior_batching.py [--model prior_tiny] [--seconds 1] [--device cuda] [--precision bf16]

The network is untrained: its time does not depend on what it knows. Both ways make the same steps in
turn, and the ratio of their medians is printed, with and without computing activations again for the
gradient.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from encore.cli.overrides import CONFIGS
from encore.inference.posterior import Problem, published
from encore.inference.source_priors import SourcePrior
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="prior_tiny", help="a file of configs/model")
    add("--sample-rate", type=int, default=8000)
    add("--seconds", type=float, default=1.0)
    add("--sources", type=int, nargs="+", default=[2, 3])
    add("--repeats", type=int, default=5)
    add("--device", default="cpu")
    add("--precision", default="32")
    add("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(
            "train",
            [
                *("experiment=prior_speech", f"model={options.model}", "data.root=none"),
                f"data.sample_rate={options.sample_rate}",
            ],
        )
    model = instantiate(OmegaConf.to_container(config.model, resolve=True))  # type: ignore[arg-type]
    model.to(options.device).eval().requires_grad_(False)
    accelerate(model, precision=options.precision)  # type: ignore[arg-type]
    mixture = 0.1 * torch.randn(1, 1, round(options.seconds * options.sample_rate), device=options.device)
    levels = model.diffusion.levels(2)  # type: ignore[union-attr]
    print(f"{options.model}, {options.seconds:g} s at {options.sample_rate} Hz, {options.device}")
    for count in options.sources:
        priors = [SourcePrior(model=model)] * count  # type: ignore[arg-type]
        for checkpointing in (False, True):
            model.network.checkpointing = checkpointing  # type: ignore[union-attr]
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for repeat in range(options.repeats + 1):
                for batched in (True, False):
                    solver = replace(published(), batched=batched)
                    start = time.perf_counter()
                    solver(
                        Problem(priors=priors, mixture=mixture, levels=levels, generator=torch.Generator())
                    )
                    if options.device != "cpu":
                        torch.cuda.synchronize()
                    if repeat:  # the first one loads and plans
                        seconds[batched].append(time.perf_counter() - start)
            together, apart = median(seconds[True]) / len(levels), median(seconds[False]) / len(levels)
            again = ", activations computed again" if checkpointing else ""
            print(
                f"{count} sources{again}: {together:.3f} s a step in one call, {apart:.3f} s one by one, "
                f"ratio {together / apart:.2f}"
            )


if __name__ == "__main__":
    main()
