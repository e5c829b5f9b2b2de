"""Joint and guarded metrics: gains over the one-step estimate, and what is not eligible."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from speech_toys import RATE, noise_like, voices
from torch import Tensor

from encore.metrics import Metric, get_metric, guarded, joint, oracle, si_sdr, snr


def metric(name: str, sample_rate: int = RATE) -> Metric:
    return get_metric(name, sample_rate=sample_rate)


class Peak:
    """The peak of each item; counts the rows that it scores."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, estimates: Tensor) -> Tensor:
        self.rows += len(estimates)
        return estimates.abs().amax((1, 2))


def peak_metric(peak: Peak | None = None) -> Metric:
    return Metric(name="peak", function=peak or Peak(), sample_rate=RATE)


def signals(sources: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """References, one-step estimates and better ones of two items, ``(2, s, 1, t)``."""
    references = voices(2, sources, 1)
    noise = noise_like(references)
    return references, references + 2 * noise, references + noise


def test_joint_is_the_weighted_sum_of_scaled_gains_and_zero_at_one_step() -> None:
    references, one_step, better = signals()
    estimates = torch.cat([better[:1], one_step[1:]])
    members = [metric("si_sdr"), metric("pesq")]
    unbound = joint(members, weights=(1.0, 0.5))
    assert (unbound.name, unbound.kind, unbound.sample_rate) == ("joint_si_sdr_pesq", "oracle", RATE)
    quality = unbound.bind(references=references).relative_to(one_step)
    assert (quality.name, quality.kind) == (unbound.name, "oracle")
    gains = [
        bound.per_source(estimates) - bound.per_source(one_step)
        for bound in (member.bind(references=references) for member in members)
    ]
    scores = quality.per_source(estimates)
    torch.testing.assert_close(scores[0], (gains[0] + 0.5 * gains[1] / 0.1)[0], rtol=1e-4, atol=0)
    assert (scores[0] > 6).all()  # the noise has half the amplitude
    assert (scores[1] == 0).all()
    assert torch.equal(quality(estimates), scores.mean(1))
    scaled = joint(members, scales=(2, 1)).bind(references=references).relative_to(one_step)
    expected = (gains[0] / 2 + gains[1])[0]
    torch.testing.assert_close(scaled.per_source(estimates)[0], expected, rtol=1e-4, atol=0)
    assert quality(torch.zeros_like(estimates)).isnan().all()


def test_blind_joint_is_zero_where_a_source_is_that_of_one_step_however_the_batch_is_composed() -> None:
    _, one_step, _ = signals()
    quality = joint([metric(f"dnsmos_{name}") for name in ("ovrl", "p808")])
    assert quality.kind == "blind"
    candidates = torch.cat([one_step, one_step * torch.tensor([0.5, 1.0])[:, None, None], one_step])
    items = torch.tensor([0, 1, 0, 1, 0, 1])
    scores = quality.relative_to(one_step).at(items).per_source(candidates)
    assert (scores == 0).tolist() == [[True, True]] * 2 + [[False, True]] * 2 + [[True, True]] * 2


def test_guard_makes_candidates_ineligible_that_lower_it() -> None:
    references, one_step, better = (signal[:1].expand(3, -1, -1, -1).clone() for signal in signals())
    # an eligible gain, a gain in SI-SDR of one source that a wrong level pays for, and the one-step estimate
    estimates = torch.stack([better[0], better[1], one_step[2]])
    estimates[1, 0] = 0.3 * references[1, 0] + 1e-3 * noise_like(references[1, 0])
    unbound = guarded(metric("si_sdr"), [metric("snr")])
    assert (unbound.name, unbound.kind) == ("si_sdr_guarded_snr", "oracle")
    quality = unbound.bind(references=references).relative_to(one_step)
    scores, expected = quality.per_source(estimates), si_sdr(estimates, references)[..., 0]
    assert scores.isnan().tolist() == [[False, False], [True, False], [False, False]]
    assert expected[1, 0] > si_sdr(one_step, references)[1, 0, 0]
    torch.testing.assert_close(scores[[0, 2]], expected[[0, 2]])
    assert quality(estimates).isnan().tolist() == [False, True, False]


def test_a_guard_that_cannot_score_lets_only_the_one_step_estimate_pass() -> None:
    too_short = signals()[1][..., :800]
    quality = guarded(peak_metric(), [metric("dnsmos_ovrl")]).relative_to(too_short)
    scores = quality(torch.stack([too_short[0], 2 * too_short[1]]))
    assert scores.isnan().tolist() == [False, True]


@pytest.mark.parametrize("kind", ["joint", "guarded", "nested"])
def test_one_step_estimates_are_scored_once_and_indexed(kind: str) -> None:
    references, one_step, better = signals()
    peak = Peak()
    both = joint([peak_metric(peak), metric("si_sdr")], scales=(1, 1))
    unbound = {
        "joint": both,
        "guarded": guarded(metric("si_sdr"), [peak_metric(peak)]),
        "nested": guarded(both, [metric("si_sdr")]),
    }[kind]
    quality = unbound.bind(references=references).relative_to(one_step)
    assert peak.rows == 4
    better = 2 * better
    expected = quality(better)
    assert expected.isfinite().all()
    items = torch.tensor([1, 0, 1])
    torch.testing.assert_close(quality.at(items)(better[items]), expected[items])
    again = quality.at(items).at(torch.tensor([1]))
    torch.testing.assert_close(again(better[:1]), expected[:1])
    assert peak.rows == 4 + 4 + 6 + 2


def test_plain_functions_and_metrics_are_joined_and_guarded_alike() -> None:
    references, one_step, better = signals()
    better = torch.stack([better[0], torch.stack([better[1, 0], one_step[1, 1]])])
    bound = oracle(snr, references)

    def plain(estimates: Tensor) -> Tensor:
        return snr(estimates, references)[..., 0].mean(1)

    for members in ([bound, bound], [plain, bound], [plain, plain]):
        quality = joint(members, weights=(1, 2), scales=(1, 4)).relative_to(one_step)
        expected = 1.5 * (bound(better) - bound(one_step))
        torch.testing.assert_close(quality(better), expected)
        assert (quality(one_step) == 0).all()
        quality = guarded(members[0], members[1:]).relative_to(one_step)
        torch.testing.assert_close(quality(better), bound(better))
        assert quality(0.3 * one_step).isnan().all()
        torch.testing.assert_close(quality(one_step), bound(one_step))
    assert joint([plain, bound], scales=(1, 1)).name == "joint_plain_snr"


def test_only_members_that_lack_a_signal_are_bound() -> None:
    references, one_step, better = signals()
    quality = joint([oracle(snr, references), metric("si_sdr")], scales=(1, 1))
    assert quality.missing == ("references",)
    found = quality.bind(references=better).relative_to(one_step)(better)
    expected = [snr(x, references) + si_sdr(x, better) for x in (better, one_step)]
    torch.testing.assert_close(found, (expected[0] - expected[1])[..., 0].mean(1))


def test_derivatives_go_through_the_candidates() -> None:
    references, one_step, better = signals()
    quality = joint([oracle(si_sdr, references), oracle(snr, references)], scales=(1, 1)).relative_to(
        one_step
    )
    assert quality.differentiable
    assert not joint([metric("pesq").bind(references=references)]).differentiable
    better.requires_grad_()
    (own,) = torch.autograd.grad(quality(better).sum(), better)
    (parts,) = torch.autograd.grad((si_sdr(better, references) + snr(better, references)).sum() / 2, better)
    torch.testing.assert_close(own, parts)


def test_they_can_be_copied_and_sent_bound_and_unbound() -> None:
    references, one_step, better = signals()
    for unbound in (
        joint([peak_metric(), metric("si_sdr")], scales=[1.0, 1.0]),
        guarded(metric("snr"), [peak_metric(), metric("si_sdr")]),
    ):
        quality = unbound.bind(references=references).relative_to(one_step)
        for send in (copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))):
            bound = send(unbound).bind(references=references).relative_to(one_step)
            torch.testing.assert_close(bound(better), quality(better), equal_nan=True)
            torch.testing.assert_close(send(quality)(better), quality(better), equal_nan=True)
