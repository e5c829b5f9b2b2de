from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from encore.metrics import music
from encore.metrics.music import bss_eval, csdr, usdr
from encore.metrics.reference import snr

RATE = 2000


@pytest.fixture(scope="module")
def museval() -> ModuleType:
    """Its module of metrics alone: the package imports more than they need."""
    package = importlib.util.find_spec("museval")
    assert package is not None
    path = Path(package.submodule_search_locations[0]) / "metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def song(seconds: float = 4.3, channels: int = 2) -> tuple[Tensor, Tensor]:
    """References and estimates ``(3, channel, time)`` with every kind of fault."""
    drawn = torch.Generator().manual_seed(0)
    shape = (3, channels, round(seconds * RATE))
    references = torch.randn(shape, generator=drawn, dtype=torch.float64)
    references *= torch.tensor([1.0, 0.4, 2.0], dtype=torch.float64)[:, None, None]
    estimates = 0.9 * references + 0.05 * references.sum(0) + 0.1 * references.roll(5, -1)
    estimates = estimates + 0.03 * torch.randn(shape, generator=drawn, dtype=torch.float64)
    if channels > 1:
        estimates[:, 1] += 0.2 * references[:, 0].roll(2, -1)
    return references, estimates


def compare(museval: ModuleType, references: Tensor, estimates: Tensor, atol: float, filters: int) -> None:
    """Compare the ratios with those of museval."""
    own = bss_eval(references, estimates, sample_rate=RATE, filters=filters)
    pair = (x.movedim(1, 2).numpy() for x in (references, estimates))
    expected = museval.bss_eval(*pair, window=RATE, hop=RATE, filters_len=filters)
    for name, values in zip(("sdr", "isr", "sir", "sar"), expected[:4], strict=True):
        np.testing.assert_allclose(getattr(own, name).numpy(), values, atol=atol, err_msg=name)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("silent", [False, True])
def test_bss_eval_is_that_of_museval(museval: ModuleType, channels: int, silent: bool) -> None:
    references, estimates = song(channels=channels)
    if silent:
        references[1, :, RATE : 2 * RATE] = 0
    compare(museval, references, estimates, 1e-6, filters=32)
    found = bss_eval(references, estimates, sample_rate=RATE, filters=32).sdr
    assert (found.shape, bool(found.isnan().any())) == ((3, 4), silent)


def test_a_song_of_less_than_a_second_is_one_window(museval: ModuleType) -> None:
    compare(museval, *song(0.7), 1e-6, filters=16)


@pytest.mark.parametrize("fault", ["none", "equal channels", "one channel", "quiet"])
def test_bss_eval_with_all_its_taps_in_pieces(
    museval: ModuleType, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(music, "_BLOCK", 700)
    monkeypatch.setattr(music, "_SLAB", 2 * RATE)
    references, estimates = song(channels=2)
    references, estimates = references[:2], estimates[:2]
    if fault == "equal channels":  # its normal equations are singular
        references[0, 1] = references[0, 0]
    elif fault == "one channel":
        references[0, 1] = 0
    elif fault == "quiet":
        references, estimates = 1e-4 * references, 1e-4 * estimates
    compare(museval, references, estimates, 1e-5, filters=512)


def test_stems_that_bss_eval_cannot_score() -> None:
    references, estimates = song()
    for spoil, share in ((slice(0, RATE), 0.25), (slice(None), 1.0)):
        silent = references.clone()
        silent[1, :, spoil] = 0
        for pair in ((silent, estimates), (estimates, silent)):
            ratios = bss_eval(*pair, sample_rate=RATE, filters=16)
            for name in ("sdr", "isr", "sir", "sar"):
                assert getattr(ratios, name).isnan().double().mean(1).tolist() == [share] * 3, name
    estimates[1, 0, 3 * RATE] = torch.inf
    ratios = bss_eval(references, estimates, sample_rate=RATE, filters=16)
    assert ratios.sdr.isnan().all()
    assert ratios.sar.isnan().all()


def test_csdr_is_the_median_of_musevals_sdr(museval: ModuleType) -> None:
    references, estimates = song()
    estimates[0, :, :RATE] += 3.0
    expected = museval.bss_eval(
        *(x.movedim(1, 2).numpy() for x in (references, estimates)), window=RATE, hop=RATE, filters_len=32
    )[0]
    found = csdr(estimates, references, sample_rate=RATE)
    np.testing.assert_allclose(found.numpy(), np.median(expected, axis=1), atol=1e-6)
    # it is given no other stem, so their silence changes nothing; museval then leaves the window out for all
    references[1, :, :RATE] = 0
    alone = csdr(estimates, references, sample_rate=RATE)
    assert alone[[0, 2]].tolist() == found[[0, 2]].tolist()
    together = bss_eval(references, estimates, sample_rate=RATE, filters=16).sdr.nanquantile(0.5, dim=1)
    assert alone[1] == pytest.approx(float(together[1]))
    assert alone[0] < together[0] - 0.01


def test_usdr_of_a_known_noise_is_exact() -> None:
    reference = torch.tensor([[[3.0, -3.0], [4.0, 4.0]]])  # energy 50
    for energy, expected in ((50.0, 0.0), (5.0, 10.0), (0.05, 30.0), (500.0, -10.0)):
        noise = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]) * energy**0.5
        assert usdr(reference + noise, reference).item() == pytest.approx(expected, abs=1e-4)


def test_usdr_takes_channels_together() -> None:
    references, _ = song()
    references[:, 0] *= 100
    estimates = references + 0.1 * torch.ones_like(references)
    expected = 10 * torch.log10(references.square().sum((1, 2)) / (0.01 * references[0].numel()))
    torch.testing.assert_close(usdr(estimates, references), expected)
    assert (usdr(estimates, references) - snr(estimates, references).mean(-1)).abs().min() > 5
    mono = references[:, :1], estimates[:, :1]
    torch.testing.assert_close(usdr(mono[1], mono[0]), snr(mono[1], mono[0])[:, 0])


def test_windows_in_which_the_stem_is_silent_do_not_count() -> None:
    reference = torch.ones(1, 2, 5 * RATE)
    errors = (0.1, 1.0, 0.01, 0.03, 0.3)
    estimate = reference + torch.tensor(errors).repeat_interleave(RATE)
    assert float(csdr(estimate, reference, sample_rate=RATE)) == pytest.approx(20, abs=1e-4)
    reference[..., :RATE] = 0
    # of four windows the middle two are averaged
    middle = -20 * (np.log10(0.3) + np.log10(0.03)) / 2
    assert float(csdr(estimate, reference, sample_rate=RATE)) == pytest.approx(middle, abs=1e-4)


def test_a_broken_sample_anywhere_makes_a_song_nan() -> None:
    # also in the rest of less than a second: a median over the windows must not make it look good
    references, estimates = song()
    estimates[2, 0, -1] = torch.nan
    assert csdr(estimates, references, sample_rate=RATE).isnan().tolist() == [False, False, True]


def test_batches_types_and_lengths() -> None:
    references, estimates = (x.float() for x in song(5.0))
    for score in (usdr, lambda e, r: csdr(e, r, sample_rate=RATE)):
        alone = torch.stack([score(*pair) for pair in zip(estimates, references, strict=True)])
        assert alone.shape == (3,)
        assert alone.dtype == torch.float32
        batch = (torch.stack([x, x.flip(0)]) for x in (estimates, references))
        torch.testing.assert_close(score(*batch), torch.stack([alone, alone.flip(0)]))
        assert score(estimates[..., :0], references[..., :0]).isnan().all()
        loud = (1e18 * x for x in (estimates, references))
        torch.testing.assert_close(score(*loud), alone, rtol=1e-4, atol=1e-4)
    short = estimates[..., : RATE // 2], references[..., : RATE // 2]
    torch.testing.assert_close(csdr(*short, sample_rate=RATE), usdr(*short))
    # the rest of less than a second does not count
    cut = [x[..., : round(4.9 * RATE)].clone() for x in (estimates, references)]
    cut[0][..., 4 * RATE :] += 9
    whole = [x[..., : 4 * RATE] for x in (estimates, references)]
    torch.testing.assert_close(csdr(*cut, sample_rate=RATE), csdr(*whole, sample_rate=RATE))


def test_a_perfect_estimate_has_a_finite_score_and_usdr_a_finite_slope() -> None:
    references, estimates = (x.float() for x in song())
    assert usdr(references, references).isfinite().all()
    assert csdr(references, references, sample_rate=RATE).isfinite().all()
    references[0] = 0
    estimates.requires_grad_()
    usdr(estimates, references).nan_to_num().sum().backward()
    assert estimates.grad.isfinite().all()
    assert not estimates.grad[0].any()
    assert estimates.grad[1:].abs().amax((1, 2)).min() > 0
