"""What the learned search keeps to, what its network hears, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from climbing import CURVES, NAN, climb, falling, saturating
from safetensors.torch import save_file
from torch import Tensor

from encore.inference.learned_search import (
    FEATURES,
    SHARES,
    LearnedSearch,
    Recording,
    ShareModel,
    features,
    fit_share_model,
    trace_features,
)
from encore.inference.refinement import Refinement, refine
from encore.inference.search import Search, Trace
from encore.inference.warm_search import ScheduledSearch
from encore.metrics.quality import Quality

every_curve = pytest.mark.parametrize("curve", CURVES, ids=lambda c: c.__name__)


def any_model(seed: int = 0) -> ShareModel:
    """Whose list depends on everything, in no sensible way."""
    model = ShareModel(hidden=5, members=2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


def constant_model(preference: list[float]) -> ShareModel:
    model = ShareModel(SHARES[: len(preference)])
    with torch.no_grad():
        model.outer_bias.copy_(torch.tensor(preference))
    return model


class Patient:
    """The same search, never finished."""

    def __init__(self, search: Search) -> None:
        self.steps, self.selects, self.wants_slopes = search.steps, search.selects, search.wants_slopes
        self.propose = search.propose

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        return torch.zeros_like(kept)


@every_curve
@pytest.mark.parametrize("candidates", [1, 2, 4])
def test_scores_never_fall_and_no_share_is_tried_twice_on_one_estimate(candidates, curve) -> None:
    for item in range(4):
        result = climb(LearnedSearch(any_model(), candidates), curve, [item], steps=14)
        assert (result.scores.diff(dim=0) >= 0).all()
        tried: list[float] = []
        for ratios, chosen in zip(result.tried, result.chosen, strict=False):
            new = [ratio for ratio in ratios.flatten().tolist() if ratio == ratio]
            assert len(new) <= candidates
            assert not set(new) & set(tried)
            assert set(new) <= set(any_model().shares.tolist())
            tried = tried + new if chosen.isnan() else []
        assert int(result.calls) == 1 + sum(int((~ratios.isnan()).sum()) for ratios in result.tried)


def test_the_list_is_gone_through_from_its_best_share_on() -> None:
    search = LearnedSearch(constant_model([0.1, 3.0, -1.0, 2.0, 0.1]), candidates=2)
    result = climb(search, falling, 1, steps=9)
    # the share of SHARES by preference, equal ones in their order
    expected = [[0.05, 0.2], [0.0, 0.3], [0.1, NAN]]
    assert len([ratios for ratios in result.tried if ratios.numel()]) == 3
    for ratios, shares in zip(result.tried, expected, strict=False):
        torch.testing.assert_close(ratios, torch.tensor([shares]), equal_nan=True)


@every_curve
def test_an_item_climbs_alone_as_in_its_batch(curve) -> None:
    search = LearnedSearch(any_model())
    together = climb(search, curve, 8, steps=6)
    for item in (0, 3, 7):
        alone = climb(search, curve, [item], steps=6)
        for name in ("scores", "chosen", "calls"):
            a, b = getattr(alone, name), getattr(together, name)[..., item : item + 1]
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=f"{name} of item {item}")


@every_curve
def test_being_finished_changes_nothing(curve) -> None:
    search = LearnedSearch(any_model(), 2)
    stopped, patient = climb(search, curve, 8, steps=12), climb(Patient(search), curve, 12, steps=12)
    for name in ("scores", "chosen", "calls"):
        a, b = getattr(stopped, name), getattr(patient, name)[..., :8]
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_an_item_whose_list_has_ended_is_finished() -> None:
    result = climb(LearnedSearch(any_model(), 2), falling, 3, steps=9)
    assert result.calls.tolist() == [1 + len(SHARES)] * 3
    assert [ratios.numel() > 0 for ratios in result.tried] == [True] * 5 + [False] * 4


def heard(mixture: Tensor, estimate: Tensor) -> Tensor:
    nothing = torch.zeros(len(mixture))
    return features(
        mixture, estimate, moves=nothing, last_share=nothing, last_gain=nothing, gain_so_far=nothing
    )


def sounds(items: int, sources: int = 1) -> tuple[Tensor, Tensor]:
    """Noise whose level goes up and down, and the same with its quiet parts turned down."""
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(items, sources, 1, 6000, generator=generator)
    loud = torch.sin(torch.arange(6000) / 500 + torch.arange(items)[:, None, None, None]) > 0
    return mixture * (0.3 + loud), mixture * (0.05 + loud) * 0.9


@pytest.mark.parametrize("gain", [1e-12, 0.003, 7.0, 1e9])
def test_features_do_not_depend_on_the_level(gain: float) -> None:
    mixture, estimate = sounds(3)
    at_first, scaled = heard(mixture, estimate), heard(gain * mixture, gain * estimate)
    torch.testing.assert_close(scaled, at_first, rtol=1e-4, atol=1e-4)
    assert at_first.shape == (3, len(FEATURES))


def test_features_of_an_item_do_not_depend_on_its_batch() -> None:
    mixture, estimate = sounds(4, sources=2)
    together = heard(mixture, estimate)
    alone = torch.cat([heard(m[None], e[None]) for m, e in zip(mixture, estimate, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert (together.std(0) > 0).sum() > 40


@pytest.mark.parametrize("length", [1, 7, 300, 4000])
def test_features_are_finite_for_silence_and_for_very_short_audio(length: int) -> None:
    noise = torch.randn(1, 1, 1, length, generator=torch.Generator().manual_seed(0))
    silence = torch.zeros_like(noise)
    for mixture, estimate in (
        (silence, silence),
        (noise, silence),
        (silence, noise),
        (noise, noise),
        (1e-30 * noise, 1e-38 * noise),
        (1e-30 * noise, 1e30 * noise),
    ):
        assert heard(mixture, estimate).isfinite().all()


def test_features_of_a_mixture_that_was_halved() -> None:
    mixture, _ = sounds(1)
    row = dict(zip(FEATURES, heard(mixture, mixture / 2)[0].tolist(), strict=True))
    half = 20 * math.log10(0.5)
    expected = {name: half for name in FEATURES if name.startswith(("left_db", "removed_db"))}
    expected |= {"cosine": 1, "envelope_likeness": 1, "mask_mean": 0.25, "pause_left_db": half}
    expected |= {"mask_undecided": 1, "spectrogram_likeness": 1, "first": 1, "gain": 0}
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-3), name
    # white noise: all bands alike, the spectrum flat but for chance
    assert row["removed_db5"] == pytest.approx(row["removed_db0"], abs=1e-3)
    assert abs(row["mixture_db5"] - row["mixture_db4"]) < 1
    assert -1 < row["flatness_mixture"] < 0


def test_the_history_is_that_of_the_last_change() -> None:
    audio = torch.zeros(3, 1, 1, 600)
    empty = torch.empty(3, 0)
    trace = Trace(
        step=4,
        steps=9,
        ratios=empty,
        scores=empty,
        slopes=empty,
        chosen=torch.tensor([[NAN, 0.4, 0.1], [NAN, 0.2, NAN], [NAN, NAN, NAN]]),
        history=torch.tensor([[1.0, 1, 1], [1, 2, 1.5], [1, 2.25, 1.5], [1, 2.25, 1.5]]),
        mixture=audio,
        estimate=audio,
        calls=torch.ones(3, dtype=torch.long),
        share_calls=1,
        generator=None,
    )
    found = trace_features(trace)
    for name, values in (
        ("first", [1.0, 0, 0]),
        ("moves", [0, math.log(3), math.log(2)]),
        ("last_share", [0, 0.2, 0.1]),
        ("last_gain", [0, 0.25, 0.5]),
        ("gain", [0, 1.25, 0.5]),
        ("gain_root", [0, math.sqrt(1.25), math.sqrt(0.5)]),
    ):
        torch.testing.assert_close(found[:, FEATURES.index(name)], torch.tensor(values))


class Nearness(Quality):
    name, needs_reference, sample_rate = "nearness", True, 8000

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        return -(estimate - reference).square().mean((1, 2))


def halves(mixture: Tensor) -> Tensor:
    return 0.5 * mixture[:, None]


def rumble_and_hiss(items: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mixtures of level 1, and the best share of each: the more hiss, by up to 30 dB, the larger."""
    generator = torch.Generator().manual_seed(seed)
    best = 0.7 * torch.rand(items, generator=generator)
    noise = torch.randn(2, items, 1, 2048, generator=generator)
    rumble = torch.nn.functional.avg_pool1d(noise[0], 31, stride=1, padding=15)
    hiss = noise[1].diff(dim=2, prepend=noise[1][..., :1])
    parts = [x / x.square().mean((1, 2), keepdim=True).sqrt() for x in (rumble, hiss)]
    share = 10 ** (3 * (best / 0.7 - 0.5))[:, None, None]
    mixture = parts[0] + share.sqrt() * parts[1]
    return mixture / mixture.square().mean((1, 2), keepdim=True).sqrt(), best


def refined(search: Search, mixture: Tensor, best: Tensor, steps: int = 1) -> Refinement:
    """``y_0 = x/2``, so share r gives ``(1 + r) x / 4``, and the reference is that of the best share."""
    reference = (1 + best)[:, None, None] / 4 * mixture
    return refine(halves, mixture, steps=steps, search=search, quality=Nearness(), reference=reference)


@pytest.fixture(scope="module")
def learned() -> ShareModel:
    recording = Recording()
    refined(recording, *rumble_and_hiss(200, seed=0))
    assert recording.gains[0].shape == (200, len(SHARES))
    return fit_share_model(recording.features[0], recording.gains[0], epochs=150)


def test_a_best_share_that_can_be_heard_is_learnt(learned: ShareModel) -> None:
    mixture, best = rumble_and_hiss(100, seed=1)
    result = refined(LearnedSearch(learned), mixture, best)
    far = (result.ratios[0].nan_to_num(nan=1.0) - best).abs()
    assert result.evaluations.tolist() == [2] * 100
    assert far.mean() < 0.06
    one_share = max(
        float(refined(ScheduledSearch([share]), mixture, best).scores[-1].mean()) for share in SHARES
    )
    nearest = (torch.tensor(SHARES) - best[:, None]).abs().amin(1)
    error = -result.scores[-1].mean()
    # what any share of the list leaves: (share - best)^2 / 16, for mixtures of level 1
    assert error < 0.25 * -one_share
    assert error < float((nearest.square() / 16).mean()) + 0.05 * -one_share


def test_recordings_hold_what_every_share_gains() -> None:
    mixture, best = rumble_and_hiss(3, seed=2)
    recording = Recording([0.0, 0.5])
    result = refined(recording, mixture, best, steps=4)
    before = (1 - best) ** 2
    for column, share in enumerate(recording.shares):
        gains = (before - (share - best) ** 2) / 16
        torch.testing.assert_close(recording.gains[0][:, column], gains, rtol=1e-3, atol=1e-5)
    # an item whose estimate was kept is recorded once more, then no longer
    moved = (~result.ratios.isnan()).sum(0)
    assert sum(len(gains) for gains in recording.gains) == int((moved + 1).clamp_max(4).sum())
    assert [len(x) for x in recording.features] == [len(x) for x in recording.gains]


def test_refinement_is_the_same_in_any_batch(learned: ShareModel) -> None:
    mixture, best = rumble_and_hiss(6, seed=3)
    together = refined(LearnedSearch(learned), mixture, best, steps=5)
    for item in range(6):
        own = slice(item, item + 1)
        alone = refined(LearnedSearch(learned), mixture[own], best[own], steps=5)
        torch.testing.assert_close(alone.ratios, together.ratios[:, own], equal_nan=True)
        assert int(alone.evaluations) == int(together.evaluations[item])


def test_a_model_comes_back_from_its_file(tmp_path: Path, learned: ShareModel) -> None:
    path = tmp_path / "shares.safetensors"
    learned.save(path)
    again = ShareModel.load(path)
    inputs = heard(*sounds(5))
    assert torch.equal(again(inputs), learned(inputs))
    assert learned(inputs).sum(1).tolist() == pytest.approx([1.0] * 5)
    a, b = (climb(LearnedSearch(model), saturating, 4, steps=4) for model in (learned, again))
    assert torch.equal(a.scores, b.scores)


def test_fitting_twice_gives_the_same_model_and_leaves_global_chance_alone() -> None:
    inputs = torch.randn(30, len(FEATURES), generator=torch.Generator().manual_seed(0))
    gains = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    gains[3, 1] = NAN
    before = torch.random.get_rng_state()
    first, second = (fit_share_model(inputs, gains, [0.1, 0.5], epochs=5) for _ in range(2))
    assert torch.equal(first(inputs), second(inputs))
    assert torch.equal(before, torch.random.get_rng_state())
    other = fit_share_model(inputs, gains, [0.1, 0.5], epochs=5, seed=1)
    assert not torch.equal(first(inputs), other(inputs))


def foreign(folder: Path, content: str) -> Path:
    path = folder / "other.safetensors"
    if content == "tensors":
        save_file({"inner": torch.zeros(1)}, path, metadata={"features": "level"})
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda _: ShareModel([]), r"shares=\[\]"),
        (lambda _: ShareModel([0.5, 1.0]), r"shares=\[0.5, 1.0\]"),
        (lambda _: ShareModel(hidden=0), "hidden=0"),
        (lambda _: ShareModel(members=0), "members=0"),
        (lambda _: LearnedSearch(ShareModel(), candidates=0), "candidates=0"),
        (lambda path: ShareModel.load(foreign(path, "text")), "other.safetensors' is no file of"),
        (lambda path: ShareModel.load(foreign(path, "tensors")), "other.safetensors' holds no share model"),
        (lambda _: fit_share_model(torch.zeros(2, 3), torch.zeros(2, 9)), r"inputs \(2, 3\)"),
        (lambda _: fit_share_model(torch.zeros(2, len(FEATURES)), torch.zeros(2, 8)), r"gains \(2, 8\)"),
        (lambda _: fit_share_model(torch.zeros(2, len(FEATURES)), -torch.ones(2, 9)), "gains: none of the 2"),
    ],
)
def test_mistakes_are_named(build: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_model_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        ShareModel.load(tmp_path / "nothing.safetensors")
