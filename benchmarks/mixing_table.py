"""What data mixing in training does to refinement: a row per run that corpus_scores.py scored.

python benchmarks/mixing_table.py outputs/results/path_* [-o FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from encore.reporting.scores import read_scores
from encore.reporting.summary import final_steps, summarise
from encore.reporting.tables import to_markdown


def row(folder: Path) -> dict[str, str]:
    """One run: what one step gives, what refinement adds, how near the identity the separator is."""
    scores = read_scores(folder / "scores.parquet")
    steps = summarise(scores)
    summary = final_steps(steps)

    def cell(column: str, metric: str, value: str, form: str) -> str:
        found = summary[(summary["column"] == column) & (summary["metric"] == metric)]
        return format(float(found[value].iloc[0]), form) if len(found) else "not run"

    schedule = steps[(steps["kind"] == "fixed") & (steps["metric"] == "si_sdr")]
    best = schedule.loc[schedule["mean"].idxmax()]
    guided = scores[(scores["kind"] == "oracle") & (scores["metric"] == "si_sdr") & (scores["step"] > 0)]
    moved = guided.groupby("item")["ratio"].apply(lambda ratios: ratios.notna().any()).mean()
    one_step = float(cell("one_step", "si_sdr", "mean", ""))
    return {
        "run": folder.name,
        "relative delta": cell("one_step", "relative_delta", "mean", ".4f"),
        "SI-SDR one step": cell("one_step", "si_sdr", "mean", ".2f"),
        "improvement": cell("one_step", "si_sdr", "improvement", "+.2f"),
        "gain, SI-SDR oracle": cell("si_sdr_oracle", "si_sdr", "gain", "+.2f"),
        "items that moved": f"{moved:.0%}",
        "PESQ gain, SI-SDR oracle": cell("si_sdr_oracle", "pesq", "gain", "+.3f"),
        "best of the fixed schedule": f"{best['mean'] - one_step:+.2f} at step {int(best['step'])}",
        "OVRL gain, DNSMOS blind": cell("dnsmos_ovrl_blind", "dnsmos_ovrl", "gain", "+.3f"),
    }


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="Markdown file to write too")
    options = parser.parse_args()
    table = to_markdown(pd.DataFrame([row(folder) for folder in options.folders]))
    print(table)
    if options.out is not None:
        options.out.write_text(table + "\n")


if __name__ == "__main__":
    main()
