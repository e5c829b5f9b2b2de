"""Figures draw what was measured, look the same in every report, and repeat to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from score_toys import NAN, cell, random_scores, row, two_models

from encore.reporting import summarise
from encore.reporting.figures import guide_looks, save_png
from encore.reporting.plots import cost_figure, gain_figure, solver_traces_figure, step_figure, with_cost
from encore.reporting.spectrograms import spectrogram_db, spectrogram_figure
from encore.reporting.summary import pair_scores


def test_a_guide_keeps_its_look_and_looks_differ():
    names = ["si_sdr_oracle", "dnsmos_ovrl_blind", "fixed", "pesq_oracle", "a_blind", "b_blind", "c_oracle"]
    looks = guide_looks(names)
    assert len({look["color"] for look in looks.values()}) == len(names)
    assert looks["fixed"] == guide_looks(["fixed"])["fixed"]
    assert len({looks[name]["linestyle"] for name in ("si_sdr_oracle", "a_blind", "fixed")}) == 3
    assert [name.rsplit("_", 1)[-1] for name in looks] == ["fixed"] + ["blind"] * 3 + ["oracle"] * 3
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
    figure = step_figure(summary, "si_sdr")
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_title()]
    assert titles == [f"run{i}" for i in range(runs)]


def test_cost_and_gain_figures_draw_what_was_measured():
    scores, macs = two_models()
    points, unit = with_cost(summarise(scores), macs)
    panel = cost_figure(points, unit).axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert (panel.get_xscale(), panel.get_xlabel()) == ("log", "Cost (MAC per second of audio)")
    assert [float(x) for x in lines["si_sdr_oracle"].get_xdata()] == [10.0, 70.0]
    assert [float(y) for y in lines["one step"].get_ydata()] == [3.0, 6.5]
    # the best model that a budget buys: the small one until the large one can be paid
    assert lines["best one step up to this cost"].get_xdata().tolist() == [10.0, 72.0, 72.0, 72.0]
    assert {text.get_text() for text in panel.texts} >= {"small", "large"}
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


def test_a_guide_that_refined_fewer_items_is_drawn_by_its_paired_gain():
    """The one refined item is far below the mean of all: its own mean would look like a loss of 7 dB."""
    rows = [row(item, value, metric="si_sdr") for item, value in (("a", 10.0), ("b", 12.0), ("c", 2.0))]
    guide = {"metric": "si_sdr", "guide": "dnsmos_ovrl", "evaluations": 5}
    rows += [row("c", value, "blind", step=step, **guide) for step, value in enumerate((2.0, 3.0))]
    summary = summarise(pd.DataFrame(rows))
    (panel,) = cost_figure(*with_cost(summary, {"a": 100.0})).axes
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert list(lines["dnsmos_ovrl_blind"].get_xdata()) == [100, 500]
    assert list(lines["dnsmos_ovrl_blind"].get_ydata()) == pytest.approx([8, 9])
    assert with_cost(summary, {})[1] == "Separator calls"
    timed = summarise(pd.DataFrame(rows).assign(seconds=2.0))
    assert with_cost(timed, {"a": None})[0]["cost"].tolist() == [2.0, 2.0]


def test_traces_are_means_by_level_from_the_noisiest_on():
    points = [
        (variant, mixture, alpha_bar, left, conflict)
        for variant, conflict in (("hybrid", 0.5), ("projection", float("nan")))
        for mixture, shift in (("0000", 0.0), ("0001", 0.2))
        for alpha_bar, left in ((0.2, 0.8 + shift), (0.5, 0.4 + shift))
    ]
    columns = ["variant", "mixture", "alpha_bar", "residual", "conflict"]
    left, conflict = solver_traces_figure(pd.DataFrame(points, columns=columns)).axes
    lines = {line.get_label(): line for line in left.get_lines()}
    assert lines.keys() == {"hybrid", "projection"}
    # sigma of abar = 0.2 and 0.5
    assert list(lines["hybrid"].get_xdata()) == pytest.approx([2.0, 1.0])
    assert list(lines["hybrid"].get_ydata()) == pytest.approx([0.9, 0.5])
    assert left.get_xlim()[0] > left.get_xlim()[1]
    (only,) = conflict.get_lines()
    assert list(only.get_ydata()) == [0.5, 0.5]
    assert only.get_color() == lines["hybrid"].get_color()
