"""Score tables, summaries, comparisons, figures and pages."""

from __future__ import annotations

import base64
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from score_toys import NAN, cell, oracle, random_scores, row, save_run, table, tiny_rows

from encore.reporting import load_all, read_scores, summarise, write_report, write_scores
from encore.reporting.examples import choose_examples, write_examples
from encore.reporting.labels import is_own_metric
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.results import comparable, result_table, results_text, verdict
from encore.reporting.scores import ScoreTableError
from encore.reporting.spectrograms import spectrogram_figure
from encore.reporting.statistics import statistics
from encore.reporting.summary import chosen_ratios, pair_scores
from encore.reporting.tables import to_markdown


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_score_table_survives_the_disk(tmp_path: Path, name: str):
    rows = [row("NA", 1.25, run="null"), row("None", NAN, run="null", input_si_sdr=-3.5)]
    read = read_scores(write_scores(tmp_path / "new" / name, rows))
    assert list(read["item"]) == ["NA", "None"]
    assert list(read["run"]) == ["null", "null"]
    assert read["value"].iloc[0] == 1.25
    assert np.isnan(read["value"].iloc[1])
    assert read["input_si_sdr"].iloc[1] == -3.5
    assert read["step"].dtype == read["evaluations"].dtype == np.int64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]  # no half-written file left


def test_score_tables_of_other_shape_are_refused_in_one_line(tmp_path: Path):
    good = table(tiny_rows())
    bad = {
        "'ratio' is missing": good.drop(columns="ratio"),
        "kind 'orcale' is unknown": good.replace("oracle", "orcale"),
        "'evaluations' has -1": good.assign(evaluations=-1),
        "'step' has 0.5": good.assign(step=0.5),
        "'value' must hold numbers": good.assign(value="loud"),
        "'guide' has an empty cell": good.assign(guide=None),
        "item 'x' has two rows": pd.concat([good, good.iloc[:1]]),
    }
    for message, frame in bad.items():
        with pytest.raises(ScoreTableError, match=re.escape(message)) as caught:
            write_scores(tmp_path / "scores.csv", frame)
        assert "\n" not in str(caught.value)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 is not all")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("broken.parquet", "empty.csv", "none.csv", "scores.txt"):
        with pytest.raises(ScoreTableError, match=re.escape(name)) as caught:
            read_scores(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_summary_against_hand_computation():
    summary = summarise(table(tiny_rows()))
    once, refined = cell(summary, "one_step", 0), cell(summary, "si_sdr_oracle", 1)
    assert once[["mean", "median", "count", "failed"]].tolist() == [4.0, 3.0, 3, 0]
    # (1 + 5) / 2, y has no mixture score
    assert once[["improvement", "improvement_count"]].tolist() == [3.0, 2]
    assert refined[["mean", "median", "count", "failed"]].tolist() == [3.5, 3.5, 2, 1]
    # Paired: (0.5 + 1.5) / 2. The difference of the means, 3.5 - 4.0, has the other sign.
    assert refined[["gain", "gain_count"]].tolist() == [1.0, 2]
    assert refined[["improvement", "improvement_count"]].tolist() == [1.5, 1]
    assert refined["evaluations"] == 7
    assert refined["ratio"] == pytest.approx(0.3)
    assert refined["kept"] == pytest.approx(1 / 3)
    assert cell(summary, "mixture", 0)["failed"] == 1


def test_pairing_equals_a_loop_over_items_whatever_fails_or_is_missing():
    rng = np.random.default_rng(3)
    scores = random_scores("a", 1, items=12).query("metric == 'si_sdr'")
    scores.loc[rng.random(len(scores)) < 0.25, "value"] = NAN
    scores = scores[rng.random(len(scores)) > 0.15]
    summary = summarise(scores)
    for _, group in summary[summary["kind"] == "oracle"].iterrows():
        for reference, name in (("one_step", "gain"), ("mixture", "improvement")):
            differences = []
            for item in scores["item"].unique():
                own = scores[scores["item"] == item]
                new = own[(own["kind"] == "oracle") & (own["step"] == group["step"])]["value"]
                old = own[own["kind"] == reference]["value"]
                known = 1.0 if reference == "mixture" else NAN  # input_si_sdr, the same number by contract
                before = old.iloc[0] if len(old) and not np.isnan(old.iloc[0]) else known
                if len(new) and not np.isnan(new.iloc[0]) and not np.isnan(before):
                    differences.append(new.iloc[0] - before)
            assert group[f"{name}_count"] == len(differences)
            assert group[name] == pytest.approx(np.mean(differences), rel=1e-12)


def test_step_zero_stands_in_for_missing_one_step_rows():
    rows = [oracle("x", 2.0, 0), oracle("x", 3.0, 1), oracle("y", 4.0, 0), oracle("y", 4.0, 1)]
    rows += [row("x", 2.0, "blind", guide="dnsmos_ovrl", step=0)]
    summary = summarise(table(rows))
    once = cell(summary, "one_step", 0)
    assert once[["mean", "count", "evaluations"]].tolist() == [3.0, 2, 1.0]
    assert cell(summary, "si_sdr_oracle", 1)["gain"] == 0.5


def test_summary_does_not_depend_on_the_order_of_rows_or_on_other_runs():
    first, second = (random_scores(run, 1, metrics=("si_sdr",)) for run in "ab")
    both = summarise(pd.concat([first, second], ignore_index=True))
    alone = summarise(first.sample(frac=1, random_state=0))
    keys = ["metric", "column", "step"]
    left = both[both["run"] == "a"].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(left, alone.sort_values(keys, ignore_index=True), rtol=1e-12)


def test_intervals_are_those_of_values_and_paired_gains():
    scores = random_scores("a", 5, items=60, steps=1, metrics=("si_sdr",))
    paired = pair_scores(scores).query("column == 'si_sdr_oracle'")
    value, gain = (statistics(paired[name]) for name in ("value", "gain"))
    found = cell(summarise(scores), "si_sdr_oracle", 1)[["low", "high", "gain_low", "gain_high"]]
    assert found.tolist() == [value.low, value.high, gain.low, gain.high]


def test_tables_name_oracle_and_blind_and_show_all_that_belongs_together():
    one = ("si_sdr",)
    scores = [random_scores("small", 1, metrics=one), random_scores("large", 2, metrics=one)]
    summary = summarise(pd.concat(scores, ignore_index=True))
    guides = ["fixed", "dnsmos_ovrl_blind", "si_sdr_oracle"]
    refined = cell(summary[(summary["run"] == "large") & (summary["metric"] == "si_sdr")], "fixed", 2)
    results = result_table(summary)
    # mixtures at other rates have other scores
    assert list(results["estimate"]) == ["mixture", "mixture", *["one_step", *guides] * 2]
    shown = results.set_index(["model", "estimate"]).loc["large", "fixed"]
    gain = f"{refined['gain']:+.2f}"
    interval = f"{gain} [{refined['gain_low']:+.2f}, {refined['gain_high']:+.2f}]"
    assert shown["gain, SI-SDR (dB)"] == interval
    assert shown["SI-SDR"] == f"{refined['mean']:.2f} ({gain})"
    assert (shown["items"], shown["calls"]) == ("8", "9")
    assert results.set_index("estimate").loc["si_sdr_oracle", "SI-SDR"].str.endswith("†").all()


def test_the_mean_chosen_ratio_and_how_often_the_estimate_was_kept():
    rows = [row("a", 1.0), row("b", 1.0)]
    for item, ratios in (("a", (0.2, np.nan)), ("b", (0.4, 0.9))):
        rows += [oracle(item, 1.0, 0, ratio=np.nan)]
        rows += [oracle(item, 2.0, step, ratio=ratio) for step, ratio in enumerate(ratios, start=1)]
    summary = summarise(table(rows))
    (chosen,) = chosen_ratios(summary).to_dict("records")
    assert chosen["ratio"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert chosen["kept"] == pytest.approx(1 / 4)


def test_rows_beside_each_other_hold_the_same_items():
    """A blind guide that refined the easy items only does not stand above the oracle of all."""
    easy, hard = {"a": 10.0, "b": 12.0}, {"c": 1.0, "d": 2.0}
    rows = [row(item, value) for item, value in (easy | hard).items()]
    rows += [oracle(item, value + 1, 1) for item, value in (easy | hard).items()]
    rows += [row(item, value + 0.1, "blind", guide="dnsmos_ovrl", step=1) for item, value in easy.items()]
    elsewhere = [row("z", 5.0, run="other"), oracle("z", 6.0, 1, run="other")]
    first, second = comparable(table(rows + elsewhere))
    assert (set(first.scores["item"]), set(second.scores["item"])) == (set(easy), {"z"})
    shown = result_table(first.summary).set_index("estimate")
    assert shown["items"].to_dict() == {"one_step": "2", "dnsmos_ovrl_blind": "2", "si_sdr_oracle": "2"}
    assert shown["PESQ-WB"].str.split().str[0].to_dict() == {
        "one_step": "11.000",
        "dnsmos_ovrl_blind": "11.100",
        "si_sdr_oracle": "12.000",
    }
    assert results_text([first, second]).count("gain, PESQ-WB") == 2


def test_the_verdict_says_what_the_intervals_say():
    def items(run: str, once: float, gain: float, kind: str, guide: str, spread: float = 0.1) -> list[dict]:
        found = []
        for n in range(6):
            same = {"run": run, "metric": "si_sdr"}
            shift = spread * (n % 3 - 1)
            found += [row(f"i{n}", once + n, **same)]
            refined = {"guide": guide, "step": 1, "evaluations": 5} | same
            found += [row(f"i{n}", once + n + gain + shift, kind, **refined)]
        return found

    def answer(scores: pd.DataFrame, costs: dict[str, float | None] | None = None) -> list[str]:
        (only,) = comparable(scores)
        return verdict(only, costs)

    blind = answer(table(items("a", 5, 0.5, "blind", "dnsmos_ovrl")))[0]
    assert blind.startswith("Without references refinement helps: dnsmos_ovrl_blind +0.50 [")
    assert "for 5 calls, 6 items" in blind
    assert "refinement does harm" in answer(table(items("a", 5, -0.5, "blind", "dnsmos_ovrl")))[0]
    assert (
        "no gain by refinement is shown"
        in answer(table(items("a", 5, 0.01, "blind", "dnsmos_ovrl", spread=1.0)))[0]
    )
    small, large = items("small", 5, 0.5, "oracle", "si_sdr"), items("large", 7, 0.2, "oracle", "si_sdr")
    oracles = answer(table(small + large), {"small": 10.0, "large": 40.0})
    assert oracles[0].startswith("Guided by the references, an upper bound")
    assert "+0.50" in oracles[0]
    assert "small by si_sdr_oracle" in oracles[0]
    assert oracles[1] == (
        "A larger model applied once is better: large +2.00 [+2.00, +2.00] dB SI-SDR over small applied "
        "once, at 4 times its cost, 6 items."
    )


def test_daggers_mark_guides_scored_by_their_own_measure():
    assert is_own_metric("pesq", "pesq_wb")
    assert is_own_metric("joint_sdr_pesq", "joint_sdr_pesq")
    assert not is_own_metric("si_sdr", "sdr")
    assert not is_own_metric("none", "pesq")
    joint = "joint_estoi_dnsmos_p808_guarded_si_sdr"
    own = [name for name in ("estoi", "stoi", "dnsmos_p808", "si_sdr") if is_own_metric(joint, name)]
    assert own == ["estoi", "dnsmos_p808"]


def test_markdown_cells_cannot_end_their_column():
    text = to_markdown(pd.DataFrame({"run": ["a|b\nc"], "n": [1]}))
    assert text == "| run    |    n |\n| :----- | ---: |\n| a\\|b c |    1 |\n"


class Structure(HTMLParser):
    """Collects the tags of a page and fails where one is not closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_are_valid_self_contained_and_escape_names(tmp_path: Path):
    figure = spectrogram_figure({"x": torch.ones(1, 99)}, 8000)
    evil = pd.DataFrame({"run": ["<script>alert(1)</script>", "b", "b"], "a&b": ["1", "2", "3"]})
    blocks = [
        Block(text="a < b\n\nsecond", table=evil, caption="above"),
        Block(figure=figure, name="p/x", caption='say "x"'),
        Block(table=evil, caption="more", folded=True),
    ]
    files = write_pages(tmp_path / "new" / "page.html", "R & D", [Section("One", blocks)] * 2)
    assert [path.name for path in files] == ["page.html", "page.md", "p_x.png"]
    html, markdown = files[0].read_text(), files[1].read_text()
    found = Structure(html).found
    assert "<script" not in html
    assert "R &amp; D" in html
    assert [attributes["id"] for tag, attributes in found if tag == "section"] == ["s0", "s1"]
    assert [attributes["href"] for tag, attributes in found if tag == "a"] == ["#s0", "#s1"]
    (picture, _) = [attributes for tag, attributes in found if tag == "img"]
    assert picture["alt"] == 'say "x"'
    assert base64.b64decode(picture["src"].removeprefix("data:image/png;base64,")) == files[2].read_bytes()
    counts = Counter(tag for tag, _ in found)
    assert (counts["p"], counts["table"], counts["caption"], counts["details"]) == (4, 4, 2, 2)
    assert '![say "x"](p_x.png)' in markdown
    assert markdown.startswith("# R & D\n\n## One\n\na < b\n\nsecond\n\nabove\n\n| run ")


def test_the_answer_comes_first_and_the_players_hold_the_very_bytes(tmp_path: Path):
    metrics = ("si_sdr", "estoi")
    own = random_scores("a", 1, items=5, metrics=metrics)
    runs, _ = load_all([save_run(tmp_path / "a", own, name="a", macs_per_second=1e6)])
    examples = choose_examples(own, "si_sdr")
    assert [example.rank for example in examples] == ["best", "median", "worst"]
    noise = torch.rand(1, 800, generator=torch.Generator().manual_seed(0))
    signals = dict.fromkeys(("mixture", "one step", "refined"), noise)
    write_examples(tmp_path / "a" / "multi_step", examples, lambda item, method: signals, 8000)
    html = write_report(runs, tmp_path / "out")[0].read_text()
    places = [html.index(mark) for mark in ("Without references", "<img", "<audio")]
    places.append(html.index("gain, SI-SDR (dB)", places[-1]))
    assert places == sorted(places)
    assert html.index("<table") > places[2]
    clips = [base64.b64decode(own) for own in re.findall(r"data:audio/flac;base64,([^\"]*)", html)]
    files = [
        tmp_path / "a" / "multi_step" / f"{example.rank}_{name}.flac"
        for example in examples
        for name in ("mixture", "one_step", "refined")
    ]
    assert clips == [path.read_bytes() for path in files]


def test_a_table_of_several_runs_gives_one_each(tmp_path: Path):
    both = pd.concat([random_scores("a", 1, items=2), random_scores("b", 2, items=2)], ignore_index=True)
    runs, _ = load_all([save_run(tmp_path, both, name="b", macs_per_second=5e6)])
    assert [(run.name, run.record.macs_per_second) for run in runs] == [("a", None), ("b", 5e6)]


def test_report_says_what_is_not_recorded_and_what_is_not_comparable(tmp_path: Path):
    other = random_scores("b", 2, items=5, metrics=("si_sdr",))
    other["item"] += "_other"
    own = random_scores("a", 1, items=5, metrics=("si_sdr",))
    runs, _ = load_all([save_run(tmp_path / "a", own, name="a"), save_run(tmp_path / "b", other)])
    files = write_report(runs, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "not recorded" in text
    assert text.count("gain, ") == 2  # no item is common
    assert {"cost_1.png", "cost_2.png"} <= {path.name for path in files}  # and no line joins the two
    assert "not comparable with the others" in text
    tables = {"scores_summary.csv", "runs.csv"}
    assert {path.name for path in files} >= {"report.html", "report.md", *tables}


def test_one_step_scores_alone_make_a_report(tmp_path: Path):
    runs, _ = load_all([save_run(tmp_path / "a", table([row("x", 1.0), row("y", 2.0)]))])
    files = write_report(runs, tmp_path / "out")
    assert all(path.stat().st_size for path in files)
