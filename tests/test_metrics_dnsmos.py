"""DNSMOS against the package speechmos, and what its windows share and leave out against windows alone."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import librosa
import pytest
import torch
import torch.nn.functional as F
from speech_toys import RATE, noisy, voices
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor

from encore.metrics import blind, dnsmos_networks
from encore.metrics.blind import DNSMOS_NAMES, dnsmos
from encore.metrics.dnsmos_networks import P808Scorer, PrimaryScorer, mel_filters

WINDOW = 144160


def voice(seconds: float, level: float = 0.01) -> Tensor:
    return noisy(2 * voices(seconds=seconds), level)


def noise(samples: int, seed: int = 0) -> Tensor:
    """Noise whose level jumps every 0.1 s; (time,)."""
    generator = torch.Generator().manual_seed(seed)
    levels = 10 ** (-3 * torch.rand(math.ceil(samples / 1600), generator=generator))
    return torch.randn(samples, generator=generator) * 0.3 * levels.repeat_interleave(1600)[:samples]


def check(clip: Tensor, published: Tensor) -> None:
    """Compare the scores of a clip with those that speechmos gives another one."""
    expected = speechmos_dnsmos.run(published.numpy(), RATE)
    scores = {f"{name.removeprefix('dnsmos_')}_mos": value.item() for name, value in dnsmos(clip).items()}
    assert scores == pytest.approx({name: float(expected[name]) for name in scores}, abs=1e-4)


# repeated often or seldom, with frames that fit the clip's length or do not; one window; several; and many,
# where the published code leaves one out
@pytest.mark.parametrize("seconds", [0.3, 4.003, 9.01, 9.5, 17.5])
def test_scores_equal_those_of_speechmos(seconds: float) -> None:
    clip = voice(seconds, 10 ** (-1.5 - seconds % 1))
    check(clip, clip)


@pytest.mark.parametrize("kind", ["noise", "music", "quiet", "too loud"])
def test_scores_of_other_signals_equal_those_of_speechmos(kind: str) -> None:
    time = torch.arange(4 * RATE) / RATE
    chord = torch.stack([torch.sin(2 * math.pi * pitch * time) for pitch in (220.0, 277.2, 329.6)]).sum(0)
    clip = {
        "noise": noise(4 * RATE),
        "music": 0.1 * chord * torch.exp(-time % 1),
        "quiet": 1e-3 * voice(4),
        "too loud": 20 * voice(4),
    }[kind]
    assert (clip.abs().max() > 1.5) == (kind == "too loud")
    check(clip, clip.clamp(-1, 1))  # samples beyond full scale are clipped


def test_windows_are_those_of_the_published_code_for_any_length() -> None:
    for time in (*range(9 * RATE, 40 * RATE, 7777), 130 * RATE):
        repeats = blind._repeats(time)
        audio = [0] * time
        while len(audio) < int(9.01 * RATE):
            audio = audio + audio
        assert time * repeats == len(audio)
        hops = range(int(math.floor(len(audio) / RATE) - 9.01) + 1)
        windows = [audio[int(hop * RATE) : int((hop + 9.01) * RATE)] for hop in hops]
        kept = [
            hop * RATE for hop, window in zip(hops, windows, strict=True) if len(window) >= int(9.01 * RATE)
        ]
        assert blind._window_starts(len(audio)) == kept


def test_an_item_does_not_depend_on_its_batch_the_names_given_or_mixed_precision() -> None:
    clips = noisy(voices(2, 2, seconds=3))
    together = dnsmos(clips)
    for name in DNSMOS_NAMES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            alone = dnsmos(clips[1, 0], names=(name,))
        assert list(alone) == [name]
        torch.testing.assert_close(alone[name], together[name][1, 0], rtol=1e-5, atol=0)
    assert together["dnsmos_ovrl"].unique().numel() == 4


def test_what_cannot_be_scored_is_nan_and_leaves_the_batch_alone() -> None:
    clips = torch.stack([voice(3)] * 5)
    clips[1] = 0
    clips[2, 5] = torch.nan
    clips[3] *= 1e-5 / clips[3].abs().max()
    for name, scores in dnsmos(clips).items():
        assert scores.isnan().tolist() == [False, True, True, True, False], name
    assert all(scores.isnan() for scores in dnsmos(voice(0.09)).values())
    assert all(scores.isnan() for scores in dnsmos(torch.zeros(0)).values())
    assert all(scores.isnan().all() for scores in dnsmos(torch.zeros(2, 1, 16000)).values())
    assert all(scores.isfinite() for scores in dnsmos(voice(0.1)).values())


@pytest.fixture(scope="module", params=[PrimaryScorer, P808Scorer])
def scorer(request: pytest.FixtureRequest) -> Iterator[PrimaryScorer | P808Scorer]:
    with torch.no_grad():
        yield request.param()


def test_a_window_of_a_stream_scores_as_it_does_alone(scorer: PrimaryScorer | P808Scorer) -> None:
    # two clips, neighbours that overlap, at even and odd places, and one that shares nothing
    starts = [0, RATE, 11 * RATE]
    streams = torch.stack([noise(starts[-1] + WINDOW, seed) for seed in range(2)])
    shared = scorer(streams, starts, periodic=False)
    alone = [scorer(streams[:, start : start + WINDOW], [0], periodic=False) for start in starts]
    torch.testing.assert_close(shared, torch.cat(alone, dim=1), rtol=0, atol=2e-5)
    assert shared.flatten(0, 1).unique(dim=0).shape[0] == 6


@pytest.mark.parametrize("samples", [640, 63360, 128000])
def test_a_periodic_stream_scores_as_it_does_unrolled(
    scorer: PrimaryScorer | P808Scorer, samples: int
) -> None:
    clip = noise(samples)[None]
    starts = sorted({k * RATE % samples for k in range(7)})[-2:]
    unrolled = clip.repeat(1, math.ceil((starts[-1] + WINDOW) / samples))
    alone = [scorer(unrolled[:, start : start + WINDOW], [0], periodic=False) for start in starts]
    shared = scorer(clip, starts, periodic=True)
    torch.testing.assert_close(shared, torch.cat(alone, dim=1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("samples", [64000, 64320, 32160, 32161])
def test_a_clip_scores_as_its_copies_do(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # which repeat after one, two, four, and more copies than there are
    clip = noise(samples)
    scores = dnsmos(clip)
    monkeypatch.setattr(blind, "_GROUP", 2**40)
    for name, expected in dnsmos(clip).items():
        torch.testing.assert_close(scores[name], expected, rtol=0, atol=2e-5)


def test_a_long_stream_scores_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = noise(14 * RATE)
    expected = dnsmos(clip)
    monkeypatch.setattr(blind, "_WINDOWS_AT_ONCE", 2)
    for name, score in dnsmos(clip).items():
        torch.testing.assert_close(score, expected[name], rtol=0, atol=2e-5)


def test_mel_filters_equal_those_of_librosa() -> None:
    for n_fft, bands in ((321, 120), (512, 64)):
        expected = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=bands)).T
        torch.testing.assert_close(
            mel_filters(n_fft, bands), expected, rtol=0, atol=1e-5 * float(expected.max())
        )


def test_scoring_imports_neither_librosa_nor_the_code_of_speechmos() -> None:
    program = (
        "import sys, torch; from encore.metrics import dnsmos; dnsmos(torch.rand(16000))\n"
        "print({'librosa', 'pesq', 'onnxruntime', 'speechmos.dnsmos'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def _extreme_signals() -> dict[str, Tensor]:
    """Ten kinds of one second each, from digital silence to full scale."""
    count = torch.arange(RATE)
    time = count / RATE
    wide = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    spectrum, bins = torch.fft.rfft(0.1 * wide), torch.arange(RATE // 2 + 1)
    harmonics = torch.stack([torch.sin(2 * math.pi * 140 * k * time) / k for k in range(1, 40)]).sum(0)
    return {
        "voice": 0.2 * harmonics * torch.sin(2 * math.pi * 2 * time).clamp(min=0) + 1e-3 * wide,
        "noise": 0.1 * wide,
        "gated": wide.clamp(-1, 1) * (time * 7 % 1 < 0.5),
        "gated by frame": wide.clamp(-1, 1) * (count // 160 % 2),
        "clicks": (count % 1600 == 0).float(),
        "square": torch.sin(2 * math.pi * 300 * time).sign(),
        "tone": torch.sin(2 * math.pi * 3333 * time) * (time > 0.5),
        "sweep": 0.9 * torch.sin(2 * math.pi * 4000 * time.square()),
        "low band": torch.fft.irfft(spectrum * (bins < RATE // 8)),
        "combed": torch.fft.irfft(spectrum * (bins // 250 % 2)),
    }


def test_channels_that_are_left_out_never_fire() -> None:
    scorer = PrimaryScorer()
    weights = dnsmos_networks._shipped_weights("sig_bak_ovr.onnx")
    full = dnsmos_networks.ScoreNetwork(weights, pooled=(3, 4, 5))
    assert (len(full.biases[1]), len(scorer.network.biases[1])) == (64, 48)
    silent = list(dnsmos_networks._SILENT)
    closest = -math.inf
    for signal in _extreme_signals().values():
        for level in (1.0, 0.03, 0.001):
            features = scorer._log_power(level * signal[None])
            maps = F.conv2d(features[:, None], full.kernels[0], full.biases[0], padding=1).relu()
            values = F.conv2d(maps, full.kernels[1][silent], full.biases[1][silent], padding=1)
            closest = max(closest, values.max().item())
    assert closest < -0.05


def test_unknown_weights_are_computed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = noise(WINDOW)[None]
    expected = PrimaryScorer()(audio, [0], periodic=False)
    monkeypatch.setattr(dnsmos_networks, "_SILENT_IN", 0)
    scorer = PrimaryScorer()
    assert len(scorer.network.biases[1]) == 64
    torch.testing.assert_close(scorer(audio, [0], periodic=False), expected, rtol=0, atol=1e-5)
