from __future__ import annotations

import librosa
import pytest
import torch
from separator_toys import noise
from torch import Tensor

from encore.data.activity import HOP, active_start, first_sound, is_silent


def led(lead: int, frames: int, seed: int = 0, channels: int = 1) -> Tensor:
    signal = noise(channels, frames, seed=seed)
    signal[:, :lead] = 0
    return signal


def librosa_start(signal: Tensor) -> int:
    return int(librosa.effects.trim(signal.numpy(), top_db=60)[1][0])


@pytest.mark.parametrize(
    ("frames", "lead"),
    [(20_000, 0), (20_000, 1400), (20_479, 11_111), (2048, 90), (2048, 2000), (100, 0), (100, 90)],
)
def test_the_first_sound_is_librosas(frames: int, lead: int) -> None:
    # loud, as librosa takes nothing for quieter than -100 dBFS, 60 dB below a peak of -40
    signal = 20 * led(min(lead, frames - 10), frames)
    assert first_sound(signal) == librosa_start(signal)


def test_the_first_sound_of_a_rising_signal_is_librosas_at_any_slope_and_in_any_channel() -> None:
    for seed, decades in enumerate((2, 4, 5, 6)):
        fade = torch.logspace(-decades, 0, 40_000)
        signal = noise(2, 40_000, seed=seed) * torch.stack((fade, fade.square()))
        starts = [first_sound(signal), first_sound(signal.flip(0)), librosa_start(signal)]
        assert len(set(starts)) == 1
        assert (starts[0] > 0) == (decades > 3)


def test_the_level_of_a_signal_does_not_matter() -> None:
    signal = led(9000, 20_000)
    assert first_sound(signal * 1e-4) == first_sound(signal) == first_sound(signal * 100) > 7000
    assert first_sound(torch.zeros(2, 5000)) == 0


def test_silence_begins_60_db_below_the_loudest_frame() -> None:
    for below, start in ((55, 0), (65, 18 * HOP)):
        signal = noise(1, 40_000)
        signal[:, :10_000] *= 10 ** (-below / 20)
        # the frame that reaches 1000 samples or so into the loud part
        assert first_sound(signal) == start


def test_all_are_active_where_the_last_one_begins_and_silent_ones_are_not_waited_for() -> None:
    signals = [led(lead, 30_000, lead) for lead in (2000, 12_000, 7000)]
    assert active_start(signals) == first_sound(signals[1]) == librosa_start(signals[1])
    assert active_start([*signals, torch.zeros(1, 30_000)]) == active_start(iter(signals))
    assert active_start([]) == 0


def test_silence_is_below_minus_60_dbfs_over_channels_and_time() -> None:
    signal = torch.full((2, 1000), 10 ** (-60 / 20))
    assert is_silent(signal * 0.99)
    assert not is_silent(signal * 1.01)
    signal[0] = 0
    assert is_silent(signal * 1.4)
    assert not is_silent(signal * 1.42)
    assert is_silent(torch.zeros(1, 10))
