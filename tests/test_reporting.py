"""Score tables, summaries, comparisons, figures and pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import bootstrap

from encore.reporting import (
    ScoreTableError,
    comparison_frame,
    comparison_table,
    equal_cost,
    gain_figure,
    guide_looks,
    load_all,
    operating_points,
    overview_table,
    pair_scores,
    ratio_figure,
    read_scores,
    save_png,
    scale_figure,
    spectrogram_figure,
    step_figure,
    step_table,
    summarise,
    to_markdown,
    write_report,
    write_scores,
)
from encore.reporting.assembly import _items_note
from encore.reporting.labels import is_own_metric
from encore.reporting.page import Block, Section, render_html, render_markdown
from encore.reporting.spectrograms import spectrogram_db
from encore.reporting.summary import chosen_ratios

NAN = float("nan")


def row(item: str, value: float, kind: str = "one_step", **cells) -> dict:
    """One row of a score table; ``cells`` override."""
    base = {"run": "a", "item": item, "input_si_sdr": NAN, "step": 0, "guide": "none", "kind": kind}
    return (
        base | {"metric": "pesq", "value": value, "ratio": NAN, "evaluations": int(kind != "mixture")} | cells
    )


def oracle(item: str, value: float, step: int, **cells) -> dict:
    return row(item, value, "oracle", guide="si_sdr", step=step, evaluations=7, **cells)


def tiny_rows() -> list[dict]:
    """Means that can be told by hand: item z fails once refined, item y has no mixture score."""
    rows = [row("x", 1.0, "mixture"), row("y", NAN, "mixture"), row("z", 2.0, "mixture")]
    rows += [row("x", 2.0), row("y", 3.0), row("z", 7.0)]
    rows += [oracle("x", 2.5, 1, ratio=0.5), oracle("y", 4.5, 1), oracle("z", NAN, 1, ratio=0.1)]
    return rows


def table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def random_scores(
    run: str, seed: int, *, items: int = 8, steps: int = 2, metrics: tuple[str, ...] = ("si_sdr", "stoi")
) -> pd.DataFrame:
    """One step and an oracle, a blind and a fixed guide on the same items, each step adding about 0.3."""
    rng = np.random.default_rng(seed)
    rows = []
    for metric in metrics:
        for index in range(items):
            same = {"run": run, "metric": metric, "input_si_sdr": 1.0}
            item, once = f"item{index}", rng.normal(10, 2)
            rows += [row(item, once - 5, "mixture", **same), row(item, once, **same)]
            for guide, kind in (("si_sdr", "oracle"), ("dnsmos_ovrl", "blind"), ("none", "fixed")):
                for step in range(1, steps + 1):
                    cells = same | {"guide": guide, "step": step, "ratio": 0.2, "evaluations": 9}
                    rows.append(row(item, once + step * rng.normal(0.3, 0.1), kind, **cells))
    return table(rows)


def cell(summary: pd.DataFrame, column: str, step: int) -> pd.Series:
    found = summary[(summary["column"] == column) & (summary["step"] == step)]
    assert len(found) == 1
    return found.iloc[0]


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
    assert once[["improvement", "improvement_count"]].tolist() == [
        3.0,
        2,
    ]  # (1 + 5) / 2, y has no mixture score
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


def test_infinite_values_are_failures_not_means():
    summary = summarise(table([row("x", 1.0), row("y", float("-inf")), row("z", 3.0)]))
    assert cell(summary, "one_step", 0)[["mean", "failed"]].tolist() == [2.0, 1]


def test_summary_does_not_depend_on_the_order_of_rows_or_on_other_runs():
    first, second = (random_scores(run, 1, metrics=("si_sdr",)) for run in "ab")
    both = summarise(pd.concat([first, second], ignore_index=True))
    alone = summarise(first.sample(frac=1, random_state=0))
    keys = ["metric", "column", "step"]
    left = both[both["run"] == "a"].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(left, alone.sort_values(keys, ignore_index=True), rtol=1e-12)


def test_intervals_agree_with_scipy():
    scores = random_scores("a", 5, items=60, steps=1, metrics=("si_sdr",))
    found = cell(summarise(scores), "si_sdr_oracle", 1)
    paired = pair_scores(scores)
    for name, ends in (("value", ("low", "high")), ("gain", ("gain_low", "gain_high"))):
        values = paired.loc[paired["column"] == "si_sdr_oracle", name].to_numpy()
        expected = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
        error = values.std() / np.sqrt(len(values))
        assert found[list(ends)].tolist() == pytest.approx(list(expected), abs=0.25 * error)


def test_tables_name_oracle_and_blind_and_show_all_that_belongs_together():
    one = ("si_sdr",)
    scores = [random_scores("small", 1, metrics=one), random_scores("large", 2, metrics=one)]
    summary = summarise(pd.concat(scores, ignore_index=True))
    guides = ["fixed", "dnsmos_ovrl_blind", "si_sdr_oracle"]
    columns = list(comparison_table(summary, "si_sdr").columns)
    assert columns[:3] == ["run", "mixture", "one_step"]
    assert columns[3::2] == guides
    refined = cell(summary[(summary["run"] == "large") & (summary["metric"] == "si_sdr")], "fixed", 2)
    shown = comparison_table(summary, "si_sdr").set_index("run").loc["large", "fixed"]
    assert shown == f"{refined['mean']:.2f} ({refined['improvement']:+.2f}) · 9 NFE"
    assert list(overview_table(summary)["estimate"]) == ["mixture", "one_step", *guides] * 2
    assert list(step_table(summary, "si_sdr")["step"]) == ["1", "2"] * 2
    numbers = comparison_frame(summary)
    assert np.allclose(numbers["value"] - numbers["one_step"], numbers["gain"])
    assert np.allclose(numbers["value"] - numbers["mixture"], numbers["improvement"])


def test_tables_show_the_mean_chosen_ratio_and_how_often_the_estimate_was_kept():
    rows = [row("a", 1.0), row("b", 1.0)]
    for item, ratios in (("a", (0.2, np.nan)), ("b", (0.4, 0.9))):
        rows += [oracle(item, 1.0, 0, ratio=np.nan)]
        rows += [oracle(item, 2.0, step, ratio=ratio) for step, ratio in enumerate(ratios, start=1)]
    summary = summarise(table(rows))
    (chosen,) = chosen_ratios(summary).to_dict("records")
    assert chosen["ratio"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert chosen["kept"] == pytest.approx(1 / 4)
    assert list(overview_table(summary)[["ratio", "kept"]].itertuples(index=False, name=None)) == [
        ("-", "-"),
        ("0.50", "25%"),
    ]


def test_daggers_mark_guides_scored_by_their_own_measure():
    assert is_own_metric("pesq", "pesq_wb")
    assert is_own_metric("joint_sdr_pesq", "joint_sdr_pesq")
    assert not is_own_metric("si_sdr", "sdr")
    assert not is_own_metric("none", "pesq")
    joint = "joint_estoi_dnsmos_p808_guarded_si_sdr"
    assert [name for name in ("estoi", "stoi", "dnsmos_p808", "si_sdr") if is_own_metric(joint, name)] == [
        "estoi",
        "dnsmos_p808",
    ]


def test_markdown_cells_cannot_end_their_column():
    text = to_markdown(pd.DataFrame({"run": ["a|b\nc"], "n": [1]}))
    assert text == "| run | n |\n| :--- | ---: |\n| a\\|b c | 1 |\n"


def two_models() -> tuple[pd.DataFrame, dict[str, float | None]]:
    """A small model refined (cost 70) and a large one applied once (cost 72), item by item."""
    rows = []
    for item, values in {"x": (2.0, 4.0, 5.0), "y": (3.0, 6.0, 5.5), "z": (4.0, NAN, 9.0)}.items():
        rows += [row(item, values[0], run="small"), oracle(item, values[1], 1, run="small")]
        rows.append(row(item, values[2], run="large"))
    return table(rows), {"small": 10.0, "large": 72.0}


def test_equal_cost_pairs_the_refined_small_model_with_the_large_one():
    scores, macs = two_models()
    paired, points = pair_scores(scores), operating_points(summarise(scores), macs)
    assert dict(zip(points["column"] + points["run"], points["cost"], strict=True)) == {
        "one_stepsmall": 10.0,
        "si_sdr_oraclesmall": 70.0,
        "one_steplarge": 72.0,
    }
    result = equal_cost(paired, points).iloc[0]
    assert result["one_step_run"] == "large"
    assert result["difference"] == pytest.approx(((4 - 5) + (6 - 5.5)) / 2)  # z failed: not paired
    assert result["items"] == 2
    strict = equal_cost(paired, points, tolerance=0.0).iloc[0]  # 72 > 70: only itself is affordable
    assert (strict["one_step_run"], strict["difference"]) == ("small", 2.5)


def test_equal_cost_needs_costs_and_common_items():
    scores, macs = two_models()
    scores.loc[scores["run"] == "large", "item"] += "_elsewhere"
    paired, summary = pair_scores(scores), summarise(scores)
    assert list(equal_cost(paired, operating_points(summary, macs))["one_step_run"]) == ["small"]
    assert operating_points(summary, {"small": None, "large": None}).empty
    assert set(operating_points(summary, {"large": 72.0})["run"]) == {"large"}
    with pytest.raises(ValueError, match="macs_per_second"):
        scale_figure(operating_points(summary, {}))


def test_a_guide_keeps_its_look_and_looks_differ():
    names = ["si_sdr_oracle", "dnsmos_ovrl_blind", "fixed", "pesq_oracle", "a_blind", "b_blind", "c_oracle"]
    looks = guide_looks(names)
    assert len({look.colour for look in looks.values()}) == len(names)
    assert looks["fixed"] == guide_looks(["fixed"])["fixed"]
    assert len({looks[name].line for name in ("si_sdr_oracle", "a_blind", "fixed")}) == 3
    assert len(guide_looks([f"g{i}_blind" for i in range(20)])) == 20


def test_step_figure_draws_the_summary():
    summary = summarise(random_scores("a", 4, metrics=("si_sdr",)))
    figure = step_figure(summary, "si_sdr")
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    rows = summary[(summary["metric"] == "si_sdr") & (summary["column"] == "si_sdr_oracle")]
    once = cell(summary[summary["metric"] == "si_sdr"], "one_step", 0)["mean"]
    assert np.allclose(lines["si_sdr_oracle"].get_ydata(), [once, *rows["mean"]])
    assert list(lines["si_sdr_oracle"].get_xdata()) == [0, 1, 2]
    assert "(dB)" in figure.axes[0].get_ylabel()
    with pytest.raises(ValueError, match="'pesq' has no scores"):
        step_figure(summary, "pesq")


@pytest.mark.parametrize("runs", [1, 5])
def test_step_figures_show_every_run_once(runs: int):
    scores = pd.concat(
        [random_scores(f"run{i}", i, items=3, steps=1, metrics=("si_sdr",)) for i in range(runs)],
        ignore_index=True,
    )
    summary = summarise(scores)
    for figure in (step_figure(summary, "si_sdr"), ratio_figure(summary)):
        titles = [axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_title()]
        assert titles == [f"run{i}" for i in range(runs)]


def test_scale_and_gain_figures_draw_what_was_measured():
    scores, macs = two_models()
    points = operating_points(summarise(scores), macs)
    panel = scale_figure(points).axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert panel.get_xscale() == "log"
    assert [float(x) for x in lines["si_sdr_oracle"].get_xdata()] == [10.0, 70.0]
    assert [float(y) for y in lines["one_step"].get_ydata()] == [3.0, 6.5]
    scatter = gain_figure(pair_scores(scores), "pesq").axes[0].collections[0]
    assert scatter.get_offsets().tolist() == [[2.0, 2.0], [3.0, 3.0]]  # (one step, gain) of x and y; z failed


def test_spectrogram_of_a_full_scale_sine_peaks_at_zero_decibels():
    time = torch.arange(16000) / 16000
    sine = torch.sin(2 * torch.pi * 1000 * time)[None]  # 1 kHz is bin 32 of 512 samples at 16 kHz
    image = spectrogram_db(sine.repeat(2, 1), 16000)
    middle = image[:, 20:-20]
    assert middle.argmax(dim=0).unique().tolist() == [32]
    assert middle.max() == pytest.approx(0, abs=0.01)
    assert spectrogram_db(torch.zeros(1, 10), 16000).max() == pytest.approx(-200)


def test_spectrogram_figure_shares_its_scales_and_names_bad_signals():
    noise = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
    figure = spectrogram_figure({"mixture": noise, "si_sdr_oracle": 0.1 * noise[:1]}, 16000, title="item")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_array().max() == pytest.approx(images[0].get_clim()[1])
    for bad in (torch.zeros(5), torch.zeros(1, 0), torch.full((1, 5), NAN), torch.zeros(1, 7)):
        with pytest.raises(ValueError, match="waveforms"):
            spectrogram_figure({"good": torch.zeros(1, 5), "bad": bad}, 16000)
    with pytest.raises(ValueError, match="waveforms"):
        spectrogram_figure({}, 16000)


def test_figures_repeat_to_the_byte(tmp_path: Path):
    summary = summarise(random_scores("a", 4, metrics=("si_sdr",)))
    files = [save_png(step_figure(summary, "si_sdr"), tmp_path / f"{i}.png") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_pages_are_self_contained_and_escape_names(tmp_path: Path):
    picture = save_png(spectrogram_figure({"x": torch.ones(1, 99)}, 8000), tmp_path / "p.png")
    evil = pd.DataFrame({"run": ["<script>alert(1)</script>"]})
    blocks = [Block(text="a < b", table=evil), Block(picture=picture, caption='say "x"')]
    html = render_html("R & D", [Section(title="One", blocks=blocks)])
    assert "<script" not in html
    assert "R &amp; D" in html
    assert re.findall(r'(?:src|href)="([^"]{0,15})', html) == ["#s0", "data:image/png;"]
    assert "![say" in render_markdown("t", [Section(title="One", blocks=blocks)])


def save_run(folder: Path, scores: pd.DataFrame, **record) -> Path:
    write_scores(folder / "scores.parquet", scores)
    if record:
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_table_of_several_runs_gives_one_each(tmp_path: Path):
    both = pd.concat([random_scores("a", 1, items=2), random_scores("b", 2, items=2)], ignore_index=True)
    runs, _ = load_all([save_run(tmp_path, both, name="b", macs_per_second=5e6)])
    assert [(run.name, run.record.macs_per_second) for run in runs] == [("a", None), ("b", 5e6)]


def test_report_says_what_is_not_recorded_and_what_is_not_comparable(tmp_path: Path):
    other = random_scores("b", 2, items=5, metrics=("si_sdr",))
    other["item"] += "_other"
    places = [
        save_run(tmp_path / "a", random_scores("a", 1, items=5, metrics=("si_sdr",)), name="a"),
        save_run(tmp_path / "b", other),
    ]
    runs, _ = load_all(places)
    assert "same 5 items" in _items_note(runs[:1] * 2)
    files = write_report(runs, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "not recorded" in text
    assert "does not record macs_per_second: a, b" in text
    assert "Caution: the runs were scored on different items (0 are common" in text
    assert {path.name for path in files} >= {
        "report.html",
        "report.md",
        "scores_summary.csv",
        "comparison.csv",
    }


def test_one_step_scores_alone_make_a_report(tmp_path: Path):
    runs, _ = load_all([save_run(tmp_path / "a", table([row("x", 1.0), row("y", 2.0)]))])
    files = write_report(runs, tmp_path / "out")
    assert all(path.stat().st_size for path in files)
