"""Can a network that hears mixture and estimate propose better shares than a fitted schedule?

    B=benchmarks/learned_proposal.py
    python $B record datasets/vbd_proposal -o OUT/curves.safetensors
    python $B record datasets/vbd_proposal -o OUT/chosen.safetensors --scores RUN/scores.parquet
    python $B fit OUT/curves.safetensors -o OUT/learned.safetensors
    python $B compare datasets/vbd_flite --fit-on datasets/vbd_proposal -o OUT/flite --models OUT/learned*

``record`` refines a corpus by all shares of the network and notes features and gains; with a table of scores
it goes the way of that run instead, and knows only what the chosen shares gained. ``fit`` prints what the
network's first choice gains on a quarter of the items that it was not fitted to, and writes one fitted to
all. ``compare`` refines another corpus and prints the best score after 2, 3, 4, 6 and 8 separator calls of an
item, that for the one-step estimate counted, over one step; the schedule is fitted on ``--fit-on`` and kept
in a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.corpora import spread, voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.inference.execution import BatchSize
from encore.inference.fitting import fit_schedule
from encore.inference.greedy_search import GreedySearch
from encore.inference.interpolation import ParabolicSearch
from encore.inference.learned_search import (
    FEATURES,
    SHARES,
    LearnedSearch,
    Recording,
    ShareModel,
    fit_share_model,
)
from encore.inference.line_search import CoarseToFine, GoldenSection
from encore.inference.refinement import refine
from encore.inference.search import Search, Trace
from encore.inference.warm_search import ScheduledSearch, WarmSearch
from encore.metrics import get_quality
from encore.metrics.summary import Summary, summarise, summarise_gain
from encore.models import load_separator
from encore.reporting.scores import read_scores
from encore.reporting.tables import to_markdown

BUDGETS = (2, 3, 4, 6, 8)
DECISIVE = 4
CEILING = "best of 9 a step, 1 call counted"
HEARD = FEATURES.index("first")


class Replay(Recording):
    """Goes the way of an earlier run: tries what it chose, and knows no other gain."""

    def __init__(self, ratios: list[float]) -> None:
        super().__init__()
        self.ratios = ratios

    def propose(self, trace: Trace) -> Tensor:
        """The chosen share, the one of the network's that is nearest to it."""
        ratio = self.ratios[trace.step - 1]
        if trace.ratios.shape[1]:
            super().propose(trace)
            known = torch.tensor(SHARES) == trace.ratios
            self.gains[-1] = self.gains[-1].expand(1, len(SHARES)).where(known, torch.nan)
        if trace.ratios.shape[1] or ratio != ratio:
            return trace.ratios.new_empty(1, 0)
        return trace.ratios.new_tensor([[min(SHARES, key=lambda share: abs(share - ratio))]])

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Where the run had stopped."""
        return kept


class Counting:
    """A search that notes the score of every separator call, for one item, and stops after enough of them."""

    def __init__(self, search: Search, calls: int) -> None:
        self.search, self.calls = search, calls
        self.scores: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """As the search, or where the calls are spent."""
        self.scores += trace.scores[trace.ratios < 1].nan_to_num(nan=-torch.inf).tolist()
        return self.search.finished(trace, kept) | (len(self.scores) >= self.calls)

    def gain(self, one_step: float, calls: int) -> float:
        """Of the best estimate after so many calls, the first one made for the one-step estimate."""
        return max([one_step, *self.scores[: calls - 1]]) - one_step


class BestOfAll(Recording):
    """The nine shares for one call: what no proposal of one of them can beat in the first step."""

    @property
    def best(self) -> list[float]:
        """Gain over the one-step estimate after each step."""
        gains = torch.stack([gain.amax().clamp_min(0) for gain in self.gains])
        return [0.0, *gains.cumsum(0).tolist()]


class Bench:
    """Separator, measure and the items of a corpus."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.separator = load_separator(options.separator)
        self.quality = get_quality(options.guide, sample_rate=self.separator.sample_rate)
        self.sizes = BatchSize()

    def items(self, root: Path, count: int | None) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Names, mixtures and references ``(1, 1, t)`` of evenly spread test items."""
        corpus = voicebank_demand(root, split="test")
        chosen = [corpus[place] for place in spread(len(corpus), count)]
        rate = self.separator.sample_rate
        dataset = SegmentDataset(
            chosen, sources=("speech",), sample_rate=rate, channels=1, segment=None, seed=0
        )
        for place in tqdm(range(len(chosen)), desc=root.name, leave=False):
            sample = dataset[place]
            yield chosen[place].name, sample["mixture"][None], sample["references"][:1]

    def refine(self, mixture: Tensor, reference: Tensor, search: Search, steps: int) -> float:
        """Refine an item; returns its one-step score."""
        result = refine(
            self.separator,
            mixture,
            steps=steps,
            search=search,
            quality=self.quality,
            reference=reference,
            max_batch=self.sizes,
        )
        return float(result.scores[0, 0])


def record(options: argparse.Namespace) -> None:
    """Write features, gains, step and item of every state of a corpus."""
    bench = Bench(options)
    ways = None if options.scores is None else ways_of(options.scores, options.guide)
    parts: dict[str, list[Tensor]] = {"features": [], "gains": [], "step": [], "item": []}
    names: list[str] = []
    for name, mixture, reference in bench.items(options.corpus, options.items):
        if ways is not None and not ways.get(name):
            continue
        recording = Recording() if ways is None else Replay(ways[name])
        bench.refine(mixture, reference, recording, options.steps if ways is None else len(ways[name]))
        count = len(recording.gains)
        parts["features"] += recording.features
        parts["gains"] += recording.gains
        parts["step"].append(torch.arange(1, count + 1))
        parts["item"].append(torch.full((count,), len(names)))
        names.append(name)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.cat(part) for name, part in parts.items()}
    save_file(tensors, options.out, metadata={"items": json.dumps(names)})
    print(f"{len(tensors['gains'])} states of {len(names)} items")


def ways_of(path: Path, guide: str) -> dict[str, list[float]]:
    """Ratios chosen for each item under a guide, NaN where the estimate was kept."""
    scores = read_scores(path)
    own = scores[(scores["guide"] == guide) & (scores["metric"] == guide) & (scores["step"] > 0)]
    return {
        str(item): rows.sort_values("step")["ratio"].tolist()
        for item, rows in own.groupby("item")
        if rows["ratio"].notna().any()
    }


class States:
    """What ``record`` wrote."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            self.features, self.gains = file.get_tensor("features"), file.get_tensor("gains")
            self.step, self.item = file.get_tensor("step"), file.get_tensor("item")
            self.names = json.loads(file.metadata()["items"])

    def of(self, names: set[str]) -> Tensor:
        """States ``(n,)`` of these items."""
        wanted = torch.tensor([name in names for name in self.names])
        return wanted[self.item]


def fit(options: argparse.Namespace) -> None:
    """Print what a model is worth on items that it does not know, then write one fitted to all."""
    states = States(options.states)
    check = states if options.check is None else States(options.check)
    held_out = set(check.names[::4])
    known = ~states.of(held_out)
    model = fitted(states, known, options)
    rows = []
    own = check.of(held_out)
    won = check.gains.nan_to_num(nan=0.0).clamp_min(0)
    with torch.no_grad():
        choice = model(check.features).argmax(1, keepdim=True)
    for step in range(1, int(check.step.max()) + 1):
        here, others = own & (check.step == step), ~own & (check.step == step)
        if not here.any() or not others.any():
            break
        row = {"step": str(step), "states": str(int(here.sum()))}
        one_share = won[here][:, won[others].mean(0).argmax()]
        for name, gain in (
            ("one share", one_share),
            ("learned", won[here].gather(1, choice[here])),
            ("best share", won[here].amax(1)),
        ):
            row[name] = f"{float(gain.mean()):.4f}"
        rows.append(row)
    print(f"Mean gain of a step on {len(held_out)} held-out items\n\n{to_markdown(pd.DataFrame(rows))}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fitted(states, torch.ones_like(known), options).save(options.out)


def fitted(states: States, rows: Tensor, options: argparse.Namespace) -> ShareModel:
    """A model fitted to some of the states; deaf to the audio if asked for."""
    inputs, gains = states.features[rows].clone(), states.gains[rows]
    if options.chosen:
        best = gains.nan_to_num(nan=-torch.inf).amax(1, keepdim=True)
        gains = gains.where(gains == best, torch.nan)
    if options.deaf:
        inputs[:, :HEARD] = 0
    model = fit_share_model(inputs, gains, epochs=options.epochs, seed=options.seed)
    if options.deaf:
        model.scale[:HEARD] = torch.inf
    return model


def searches(options: argparse.Namespace, schedule: list[float]) -> dict[str, Callable[[], Search]]:
    """Everything that is compared, by name."""
    built: dict[str, Callable[[], Search]] = {
        "fitted schedule": lambda: ScheduledSearch(schedule),
        "warm": WarmSearch,
        "greedy": GreedySearch,
        "warm, from the fitted share": lambda: WarmSearch(first=schedule[:1]),
        "parabolic, from the fitted share": lambda: ParabolicSearch(first=schedule[0]),
        "golden section": GoldenSection,
        "coarse to fine": CoarseToFine,
    }
    for path in options.models:
        search = LearnedSearch(ShareModel.load(path))
        built[path.stem] = lambda search=search: search  # type: ignore[misc]
    return built


def fit_on(bench: Bench, options: argparse.Namespace) -> list[float]:
    """The schedule fitted on another corpus; taken from the file if it holds one that was fitted alike."""
    path: Path = options.schedule or options.out.parent / "schedule.json"
    settings = {
        "separator": options.separator,
        "guide": options.guide,
        "corpus": str(options.fit_on),
        "items": options.fit_items,
    }
    if not path.exists():
        pairs = [item[1:] for item in bench.items(options.fit_on, options.fit_items)]
        found = fit_schedule(bench.separator, pairs, bench.quality, steps=BUDGETS[-1] - 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**settings, "shares": found}) + "\n")
    kept = json.loads(path.read_text())
    if not isinstance(kept, dict) or {name: kept.get(name) for name in settings} != settings:
        raise ValueError(f"schedule='{path}' was not fitted with {settings}: remove it, or name another file")
    schedule: list[float] = kept["shares"]
    return schedule


def compare(options: argparse.Namespace) -> None:
    """Refine every item by every search, then print and write the gains."""
    bench = Bench(options)
    schedule = fit_on(bench, options)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    chosen = searches(options, schedule)
    for name, mixture, reference in bench.items(options.corpus, options.items):
        for search, build in chosen.items():
            counting = Counting(build(), BUDGETS[-1] - 1)
            one_step = bench.refine(mixture, reference, counting, BUDGETS[-1] - 1)
            rows += [
                {"search": search, "item": name, "calls": calls, "gain": counting.gain(one_step, calls)}
                for calls in BUDGETS
            ]
        if options.ceiling:
            best = BestOfAll()
            bench.refine(mixture, reference, best, DECISIVE - 1)
            for calls in (calls for calls in BUDGETS if calls <= DECISIVE):
                gain = best.best[min(calls - 1, len(best.best) - 1)]
                rows.append({"search": CEILING, "item": name, "calls": calls, "gain": gain})
    table = pd.DataFrame(rows)
    table.to_csv(options.out / "gains.csv", index=False)
    text = f"Schedule: {schedule}\n\n{report(table, [path.stem for path in options.models])}\n"
    (options.out / "tables.md").write_text(text)
    print(text)


def report(table: pd.DataFrame, learned: list[str]) -> str:
    """Markdown: mean gains by calls, and how far the learned ones are from all others at 4 calls."""
    wide = table.pivot(index="item", columns=["search", "calls"], values="gain")
    names = list(dict.fromkeys(table["search"]))
    rows = []
    for name in names:
        row = {"search": name}
        for calls in BUDGETS:
            known = (name, calls) in wide
            row[f"{calls} calls"] = interval(summarise(wide[name, calls])) if known else ""
        for model in learned:
            same = name == model
            difference = summarise_gain(wide[model, DECISIVE], wide[name, DECISIVE])
            row[f"{model} minus this, {DECISIVE} calls"] = "" if same else interval(difference)
        rows.append(row)
    return f"Gain over one step, {len(wide)} items\n\n{to_markdown(pd.DataFrame(rows))}"


def interval(summary: Summary) -> str:
    """Mean and confidence interval."""
    return f"{summary.mean:.4f} [{summary.low:.4f}, {summary.high:.4f}]"


def main() -> None:
    """Record, fit or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for work in (record, fit, compare):
        command = commands.add_parser(work.__name__, help=work.__doc__)
        command.set_defaults(work=work)
        command.add_argument("states" if work is fit else "corpus", type=Path)
        command.add_argument("-o", "--out", type=Path, required=True)
        if work is fit:
            command.add_argument("--check", type=Path, help="states with all gains, for the held-out items")
            command.add_argument("--epochs", type=int, default=200)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--deaf", action="store_true", help="do without what is heard")
            command.add_argument(
                "--chosen", action="store_true", help="forget the gains of all but the best share"
            )
            continue
        command.add_argument("--separator", help="a checkpoint; the shipped separator by default")
        command.add_argument("--guide", default="si_sdr")
        command.add_argument("--items", type=int, help="evenly spread; all by default")
        if work is record:
            command.add_argument("--steps", type=int, default=5)
            command.add_argument("--scores", type=Path, help="table of an exhaustive run that is gone after")
            continue
        command.add_argument(
            "--fit-on", type=Path, required=True, help="corpus that the schedule is fitted on"
        )
        command.add_argument("--fit-items", type=int, default=60)
        command.add_argument(
            "--schedule", type=Path, help="file of the schedule; schedule.json beside OUT by default"
        )
        command.add_argument("--models", type=Path, nargs="+", required=True)
        command.add_argument("--ceiling", action="store_true", help="also the best share of each step")
    options = parser.parse_args()
    keep_freed_memory()
    options.work(options)


if __name__ == "__main__":
    main()
