"""The options of a refinement against the wrappers, paths and searches that they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from bridge_toys import toy_bridge
from refinement_toys import Counting, of_sources, same, squash
from separator_toys import noise
from torch import Generator, Tensor

from encore import metrics
from encore.inference import (
    CoarseToFine,
    GradientLineSearch,
    GreedySearch,
    GridSearch,
    MaxEvaluations,
    NoisyPath,
    RefineOptions,
    Trajectory,
    Wiener,
    aligned,
    at_level_of,
    endpoint,
    linear_schedule,
    mixture_consistent,
    overlap_add,
    refine,
    refine_fixed,
    shift_average,
    state,
    wiener_filtered,
)
from encore.inference.bridges import with_ratio
from encore.inference.quality import cost_of
from encore.inference.refinement import Refined
from encore.metrics import Metric, get_metric
from encore.models.levels import without_normalization
from encore.models.separators.contract import AdaptedSeparator
from encore.models.wrappers import Standardised, match_channels

RATE, GROUPS = 8000, [[0, 1]]
SI_SDR = get_metric("si_sdr", sample_rate=RATE)
FIXED_POINT = get_metric("fixed_point", sample_rate=RATE)
SEARCH = GridSearch(4, steps=3)


class Net(AdaptedSeparator):
    """Two sources; what comes out depends on the level of what goes in."""

    def __init__(self, sources: tuple[str, ...] = ("a", "b"), channels: int = 2) -> None:
        super().__init__(sources, RATE, channels)

    def estimate(self, mixture: Tensor) -> Tensor:
        return of_sources(squash, len(self.sources))(mixture)


class Speakers(Net):
    """Two speakers, in an order that one of the samples and the length decide."""

    def __init__(self) -> None:
        super().__init__(("speaker1", "speaker2"))

    def estimate(self, mixture: Tensor) -> Tensor:
        estimates = torch.stack((squash(mixture), 0.4 * mixture.roll(5, -1)), dim=1)
        swap = (mixture[:, 0, -500] < 0) ^ bool(mixture.shape[-1] % 2)
        return torch.where(swap[:, None, None, None], estimates.flip(1), estimates)


NET, MONO, SPEAKERS = Net(), Net(channels=1), Speakers()
LEVELLED = Standardised(Net())
REFERENCES = 5 * noise(3, 2, 2, 800)
MIXTURE = REFERENCES.sum(1) + noise(3, 2, 800, seed=1) + 0.1


def seeded() -> Generator:
    return Generator().manual_seed(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "middle"}, "path=middle: choose endpoint or state"),
        ({"level": "none"}, "level=none: choose mixture or own"),
        ({"wiener": "double"}, "wiener=double: choose single or multi or null"),
        ({"consistency": "yes"}, "consistency=yes: choose uniform or energy or null"),
        *(({name: 0}, f"{name}=0: ") for name in ("max_evaluations", "max_batch", "workers")),
        ({"shifts": -1}, "shifts=-1: "),
        ({"noise": -0.1}, "noise=-0.1: "),
        ({"noise": 0.1, "path": "state"}, "noise=0.1: "),
        *(
            ({"with_ratio": True, **other}, "with_ratio=true: is for the endpoint path, without shifts")
            for other in ({"path": "state"}, {"shifts": 1}, {"wiener": "single"}, {"consistency": "energy"})
        ),
        ({"guide": None}, "guide=null: GridSearch needs a guide"),
        ({"search": torch.tensor([0.5])}, "guide=si_sdr: a schedule has none"),
        ({"search": torch.tensor([1.5]), "guide": None}, "ratios=[1.5]: "),
        ({"search": torch.tensor([0.5]), "guide": None, "max_evaluations": 3}, "max_evaluations=3: "),
    ],
)
def test_an_invalid_value_is_named_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        RefineOptions(**{"search": SEARCH, "guide": "si_sdr", **options})
    assert "\n" not in str(error.value)


def test_options_are_frozen_and_changed_by_replacing() -> None:
    options = RefineOptions(guide="si_sdr")
    with pytest.raises(FrozenInstanceError):
        options.shifts = 2  # type: ignore[misc]
    assert replace(options, shifts=2).shifts == 2
    with pytest.raises(ValueError, match="shifts=-2"):
        replace(options, shifts=-2)


def shifted(net: Any, groups: Any = ()) -> Any:
    return shift_average(net, shifts=2, max_shift=RATE // 2, groups=groups, generator=seeded())


def filtered(net: Any, multichannel: bool) -> Any:
    return wiener_filtered(net, Wiener.at_rate(RATE, multichannel=multichannel))


cut = overlap_add(NET, segment=300, overlap=0.2)
BY_HAND: dict[str, tuple[Any, dict[str, Any], Callable[[Tensor], Any]]] = {
    "nothing": (NET, {}, lambda x: NET),
    "of normalized input": (LEVELLED, {}, lambda x: at_level_of(without_normalization(LEVELLED), x)),
    "at its own level": (LEVELLED, {"level": "own"}, lambda x: LEVELLED),
    "not normalizing": (NET, {"level": "own"}, lambda x: NET),
    "shifts": (NET, {"shifts": 2}, lambda x: shifted(NET)),
    "single": (NET, {"wiener": "single"}, lambda x: filtered(NET, False)),
    "multi": (NET, {"wiener": "multi"}, lambda x: filtered(NET, True)),
    "uniform": (NET, {"consistency": "uniform"}, lambda x: mixture_consistent(NET, x)),
    "energy": (NET, {"consistency": "energy"}, lambda x: mixture_consistent(NET, x, "energy")),
    "state": (NET, {"path": "state"}, lambda x: NET),
    "noise": (NET, {"noise": 0.2}, lambda x: NET),
    "speakers": (SPEAKERS, {}, lambda x: aligned(SPEAKERS, x, GROUPS, REFERENCES)),
    "segments": (NET, {"wrap": lambda net: overlap_add(net, segment=300, overlap=0.2)}, lambda x: cut),
    "all": (
        SPEAKERS,
        {"shifts": 2, "wiener": "multi", "consistency": "energy", "path": "state"},
        lambda x: mixture_consistent(
            filtered(aligned(shifted(SPEAKERS, GROUPS), x, GROUPS, REFERENCES), True), x, "energy"
        ),
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_options_stand_for_wrappers_and_paths(case: str) -> None:
    net, options, build = BY_HAND[case]
    call = {"references": REFERENCES, "generator": seeded()}
    if "wrap" in options:
        call["wrap"] = options["wrap"]
        options = {}
    path = NoisyPath(0.2) if case == "noise" else state if "path" in options else endpoint
    separate = build(MIXTURE)
    ratios = torch.tensor([0.6, 0.2])
    steps, known = Trajectory(), Trajectory()
    found = RefineOptions(search=ratios, **options)(net, MIXTURE, callback=steps, **call)
    expected = refine_fixed(separate, MIXTURE, ratios, path=path, callback=known)
    same(found, counted(expected, options), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.stack(steps.estimates), torch.stack(known.estimates))
    # the options matter
    plain = RefineOptions(search=ratios, level="own")(net, MIXTURE)
    alike = torch.allclose(plain.estimates, found.estimates, atol=1e-4)
    assert alike == (case in ("nothing", "not normalizing", "at its own level"))
    for guide in (SI_SDR, FIXED_POINT):
        call["generator"] = seeded()
        guided = RefineOptions(search=SEARCH, guide=guide, max_batch=2, **options)(net, MIXTURE, **call)
        quality = guide.bind(mixture=MIXTURE, references=REFERENCES, separate=separate)
        expected = counted(refine(separate, MIXTURE, quality, SEARCH, path=path), options)
        same(guided, expected, rtol=1e-4, atol=1e-5)


def counted(refined: Refined, options: dict[str, Any]) -> Refined:
    """Each shift is a call."""
    return replace(refined, evaluations=refined.evaluations * options.get("shifts", 1))


def test_a_mono_separator_separates_every_channel() -> None:
    options = RefineOptions(search=linear_schedule(3))
    expected = refine_fixed(match_channels(MONO, 2), MIXTURE, linear_schedule(3))
    same(options(MONO, MIXTURE), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="channels=2: the separator takes 3"):
        options(Net(channels=3), MIXTURE)


def test_a_bridge_is_conditioned_on_the_ratio() -> None:
    bridge, mixture, ratios = toy_bridge(), noise(2, 1, 2000), linear_schedule(3)
    with torch.no_grad():
        found = RefineOptions(search=ratios, with_ratio=True)(bridge, mixture)
        expected = refine_fixed(with_ratio(bridge, mixture), mixture, ratios)
        plain = RefineOptions(search=ratios)(bridge, mixture)
    same(found, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(plain.estimates, found.estimates, atol=1e-4)
    with pytest.raises(ValueError, match="Net was not trained as a bridge"):
        RefineOptions(search=ratios, with_ratio=True)(NET, mixture)


def test_a_guide_is_a_metric_or_its_name_and_gets_mixture_separator_and_references() -> None:
    for name in ("si_sdr", "disjointness", "fixed_point"):
        metric = get_metric(name, sample_rate=RATE)
        quality = metric.bind(mixture=MIXTURE, references=REFERENCES, separate=NET)
        expected = refine(NET, MIXTURE, quality, SEARCH)
        for guide in (name, metric):
            found = RefineOptions(search=SEARCH, guide=guide, max_batch=4)(
                NET, MIXTURE, references=REFERENCES
            )
            same(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="references=None: 'si_sdr' is an oracle"):
        RefineOptions(search=SEARCH, guide="si_sdr")(NET, MIXTURE)
    with pytest.raises(ValueError, match="si_sdr"):
        RefineOptions(search=SEARCH, guide="si_sdrr")(NET, MIXTURE)


def test_calls_hold_no_more_than_max_batch_inputs() -> None:
    for size in (1, 2):
        net = Net()
        counting = net.estimate = Counting(net.estimate)  # type: ignore[method-assign,assignment]
        options = RefineOptions(search=SEARCH, guide="si_sdr", max_batch=size, workers=2)
        found = options(net, MIXTURE, references=REFERENCES)
        assert counting.largest == size
        assert counting.rows == int(found.evaluations.sum())


@pytest.mark.parametrize("search", [SEARCH, torch.tensor([0.5, 1.0])], ids=["search", "schedule"])
def test_every_shift_is_a_counted_call(search: Any) -> None:
    net = Net()
    counting = net.estimate = Counting(net.estimate)  # type: ignore[method-assign,assignment]
    guide = None if isinstance(search, torch.Tensor) else "si_sdr"
    options = RefineOptions(search=search, guide=guide, shifts=3)
    found = options(net, MIXTURE, references=REFERENCES)
    assert counting.rows == int(found.evaluations.sum())
    metric = options.metric(16000)
    assert int(found.evaluations.max()) <= options.max_calls(2, metric) == 3 * plain_calls(options, metric)
    if guide is not None:
        limited = replace(options, max_evaluations=10)
        assert int(limited(net, MIXTURE, references=REFERENCES).evaluations.max()) <= 10


def plain_calls(options: RefineOptions, metric: Metric | None) -> int:
    return replace(options, shifts=0).max_calls(2, metric)


def joint(*members: Any) -> Metric:
    return metrics.joint(members, scales=[1.0] * len(members))


@pytest.mark.parametrize("guide", [SI_SDR, FIXED_POINT, joint(FIXED_POINT, SI_SDR)], ids=lambda g: g.name)
def test_no_item_costs_more_than_max_calls(guide: Any) -> None:
    for search in (
        GridSearch(4, steps=2, keep_best=False),
        GridSearch(3, include_estimate=True, steps=3),
        GreedySearch(steps=4),
        CoarseToFine(steps=2),
        *([GradientLineSearch(steps=2)] if guide is SI_SDR else []),
    ):
        options = RefineOptions(search=search, guide=guide)
        most = options.max_calls(2, guide)
        found = options(NET, MIXTURE, references=REFERENCES)
        assert int(found.evaluations.max()) <= most
        if not search.keep_best:
            assert found.evaluations.tolist() == [most] * 3
        # the first estimate and its score are always made
        start = cost_of(guide, search, 2).start
        for limit in (1, 6, 9, 1000):
            limited = replace(options, max_evaluations=limit)
            found = limited(NET, MIXTURE, references=REFERENCES)
            assert int(found.evaluations.max()) <= limited.max_calls(2, guide) <= max(start, min(most, limit))
            quality = guide.bind(mixture=MIXTURE, references=REFERENCES, separate=NET)
            expected = refine(NET, MIXTURE, quality, MaxEvaluations(search, limit))
            same(found, expected, rtol=1e-4, atol=1e-5)


def test_a_schedule_costs_its_ratios_below_one() -> None:
    options = RefineOptions(search=torch.tensor([0.5, 1.0, 0.2]))
    found = options(NET, MIXTURE)
    assert options.max_calls(2) == 1 + 2 * 2
    assert found.evaluations.tolist() == [5] * 3
    assert found.scores.isnan().all()


def test_names_kinds_and_uses() -> None:
    schedule = RefineOptions(search=linear_schedule(4))
    blind, oracle = (RefineOptions(guide=name) for name in ("dnsmos_ovrl", "si_sdr"))
    combined = RefineOptions(guide=joint(SI_SDR, FIXED_POINT), search=SEARCH)
    one_step = RefineOptions(search=GridSearch(1, steps=0))
    guides = [own.guide_name for own in (schedule, blind, oracle, combined, one_step)]
    assert guides == ["none", "dnsmos_ovrl", "si_sdr", "joint_si_sdr_fixed_point", "none"]
    kinds = [o.kind for o in (schedule, blind, oracle, combined, one_step)]
    assert kinds == ["fixed", "blind", "oracle", "oracle", "fixed"]
    assert [o.guided for o in (schedule, blind, one_step)] == [False, True, False]
    assert [o.steps for o in (schedule, blind, combined, one_step)] == [3, 20, 3, 0]
    changes: list[dict[str, Any]] = [{"consistency": "uniform"}, {"wiener": "multi"}, {"shifts": 1}]
    assert [replace(blind, **change).plain for change in ({}, *changes)] == [True, False, False, False]
    assert isinstance(blind.search, GreedySearch)
    found = one_step(NET, MIXTURE)
    assert torch.equal(found.estimates, NET(MIXTURE))
    assert found.evaluations.tolist() == [1] * 3
