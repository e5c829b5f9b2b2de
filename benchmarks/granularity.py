"""What refinement gains on long items as a whole and segment by segment.

    python benchmarks/granularity.py datasets/vbd_flite [--items 5] [--segments 16 8 4]

Long items are made of a corpus' test utterances, one after the other, each in its own noise: what is best
for one part need not be for another. Every way hears the same segments with the same fades: ``item``
refines the joined estimates of all of them with one ratio a step, ``segment`` each by itself with ratios of
its own. Printed are the mean gain of the guide's measure over the one-step estimate, on the utterances that
an item is made of and on the item as a whole, with 95 % bootstrap intervals over items, and the separator
calls in units of the whole item.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.corpora import voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.inference import BatchSize, GreedySearch, Refinement, overlap_add, refine
from encore.inference.segments import refine_in_segments
from encore.metrics import Quality, get_quality
from encore.metrics.summary import summarise
from encore.models import load_separator
from encore.models.types import LoadedSeparator
from encore.reporting.tables import to_markdown

OVERLAP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LongItem:
    """Mixture and reference ``(1, 1, t)``, and where its utterances begin and end."""

    mixture: Tensor
    reference: Tensor
    places: list[slice]


def long_items(root: Path, count: int, sample_rate: int) -> Iterator[LongItem]:
    """The test utterances of a corpus, dealt to so many items."""
    corpus = voicebank_demand(root, split="test")
    utterances = SegmentDataset(
        corpus, sources=("speech",), sample_rate=sample_rate, channels=1, segment=None, seed=0
    )
    for first in range(count):
        parts = [utterances[place] for place in range(first, len(corpus), count)]
        lengths = [part["mixture"].shape[-1] for part in parts]
        ends = torch.tensor(lengths).cumsum(0).tolist()
        yield LongItem(
            torch.cat([part["mixture"] for part in parts], dim=-1)[None],
            torch.cat([part["references"][0] for part in parts], dim=-1)[None],
            [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)],
        )


def refined(
    separate: LoadedSeparator, item: LongItem, quality: Quality, way: str, seconds: float, steps: int
) -> Refinement:
    """Refine an item as a whole or segment by segment, the segments of that length."""
    segment, overlap = (round(x * separate.sample_rate) for x in (seconds, OVERLAP_SECONDS))
    options = {"search": GreedySearch(), "steps": steps, "quality": quality}
    reference = item.reference if quality.needs_reference else None
    if way == "item":
        joined = overlap_add(separate, segment=segment, overlap=overlap / segment)
        return refine(joined, item.mixture, reference=reference, **options)
    one = partial(refine, separate, max_batch=BatchSize(), **options)
    lanes = torch.get_num_threads()
    return refine_in_segments(
        one, item.mixture, segment=segment, overlap=overlap, reference=reference, lanes=lanes
    )


def score(quality: Quality, estimate: Tensor, reference: Tensor, mixture: Tensor) -> float:
    """What a measure says of one item."""
    return quality(estimate, reference=reference, mixture=mixture, one_step=estimate).item()


def gains(quality: Quality, item: LongItem, found: Refinement) -> tuple[float, float]:
    """Gain of the measure, mean over the utterances, and on the item as a whole."""

    def gain(place: slice) -> float:
        cut: Callable[[Tensor], Tensor] = lambda x: x[..., place]  # noqa: E731
        clean, mixture = cut(item.reference), cut(item.mixture)
        return score(quality, cut(found.estimate), clean, mixture) - score(
            quality, cut(found.one_step), clean, mixture
        )

    local = [gain(place) for place in item.places]
    return sum(local) / len(local), gain(slice(None))


def main() -> None:
    """Print a row for each guide, way and length of segments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in the VoiceBank-DEMAND layout")
    parser.add_argument("--separator", help="checkpoint; the shipped one by default")
    parser.add_argument("--items", type=int, default=5)
    parser.add_argument("--segments", type=float, nargs="+", default=[16.0, 8.0, 4.0], metavar="SECONDS")
    parser.add_argument("--guides", nargs="+", default=["si_sdr", "dnsmos_ovrl"])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    keep_freed_memory()
    separate = load_separator(options.separator)
    items = list(long_items(options.data, options.items, separate.sample_rate))
    seconds = [item.mixture.shape[-1] / separate.sample_rate for item in items]
    print(f"{len(items)} items of {min(seconds):.0f} to {max(seconds):.0f} s")
    rows = []
    ways = [(way, length) for length in options.segments for way in ("item", "segment")]
    bar = tqdm(total=len(options.guides) * len(ways) * len(items), unit="item")
    for name in options.guides:
        quality = get_quality(name, sample_rate=separate.sample_rate)
        for way, length in ways:
            found = []
            for item in items:
                refinement = refined(separate, item, quality, way, length, options.steps)
                found.append((*gains(quality, item, refinement), float(refinement.evaluations)))
                bar.update()
            local, whole, calls = (torch.tensor(column) for column in zip(*found, strict=True))
            rows.append(
                {
                    "guide": name,
                    "refined per": way,
                    "segments": f"{length:g} s",
                    "gain on utterances": interval(local),
                    "gain on the whole": interval(whole),
                    "NFE": f"{calls.mean():.1f}",
                }
            )
    bar.close()
    print(to_markdown(pd.DataFrame(rows)))


def interval(values: Tensor) -> str:
    """Mean and bootstrap interval."""
    summary = summarise(values)
    return f"{summary.mean:+.3f} [{summary.low:.3f}, {summary.high:.3f}]"


if __name__ == "__main__":
    main()
