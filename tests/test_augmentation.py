from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from draws import check_frequency, check_uniform, seeded
from torch import Tensor

from encore.data.augmentation import (
    EQUALISER_BANDS,
    random_channel_swap,
    random_equaliser,
    random_pitch,
    random_sign_flip,
    random_speed,
    random_tempo,
)
from encore.data.mixing import batch_remix, random_gains, random_snr

RATE = 16_000
DRAWS: dict[str, Callable[..., Tensor]] = {
    "speed": partial(random_speed, speed=(0.8, 1.25)),
    "equaliser": partial(random_equaliser, range_db=12.0),
    "tempo": partial(random_tempo, tempo=(0.8, 1.25)),
    "pitch": partial(random_pitch, semitones=(-5, 5)),
    "channels": partial(random_channel_swap, probability=0.5),
    "sign": partial(random_sign_flip, probability=0.5),
    "gains": partial(random_gains, gain_db=(-6.0, 3.0)),
    "snr": partial(random_snr, snr_db=(-5.0, 20.0)),
    "remix": batch_remix,
}
CONTINUOUS = ("speed", "equaliser", "tempo", "pitch")  # the others have two results only


def draw(name: str, components: Tensor, seed: int = 0) -> Tensor:
    return DRAWS[name](components, generator=seeded(seed))


def noise(batch: int = 3, sources: int = 2, channels: int = 2, time: int = 400) -> Tensor:
    return torch.randn(batch, sources + 1, channels, time, generator=seeded(9), dtype=torch.float64)


def tone(cycles: float, frames: int, length: int) -> Tensor:
    """The first ``frames`` of a cosine that swings ``cycles`` times in ``length`` samples."""
    return torch.cos(2 * math.pi * cycles / length * torch.arange(frames, dtype=torch.float64))


def played(components: Tensor, speed: float) -> Tensor:
    return random_speed(components, (speed, speed), generator=seeded())


def gains_db(frames: int, range_db: float, batch: int = 8) -> Tensor:
    """Gain in dB ``(b, s + 1, frequency)`` of every bin, from impulses."""
    impulses = torch.zeros(batch, 2, 1, frames, dtype=torch.float64)
    impulses[..., 0] = 1
    response = torch.fft.rfft(random_equaliser(impulses, range_db, generator=seeded()))[:, :, 0]
    assert (response.real > 0).all()
    torch.testing.assert_close(response.imag, torch.zeros_like(response.imag), rtol=0, atol=1e-9)  # no delay
    return 20 * response.real.log10()


@pytest.mark.parametrize(("name", "frames"), [(name, 400 + number % 2) for number, name in enumerate(DRAWS)])
def test_the_seed_decides_and_components_are_not_written_to(name: str, frames: int) -> None:
    components = noise(time=frames).float()
    before = components.clone()
    first, again, other = (draw(name, components, seed) for seed in (1, 1, 2))
    assert first.shape == components.shape
    assert first.dtype == components.dtype
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert torch.equal(components, before)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_every_component_of_every_item_draws_its_own_and_its_channels_have_the_same(name: str) -> None:
    frames = 4000 if name == "tempo" else 400  # its window is 2048 long
    drawn = draw(name, noise(1, 0, 1, frames).expand(3, 3, 2, frames))
    assert torch.equal(drawn[:, :, 0], drawn[:, :, 1])
    signals = drawn[:, :, 0].flatten(0, 1)
    apart = torch.cdist(signals, signals) + 1000 * torch.eye(9)
    assert apart.min() > 0.1  # equal draws would be 0 apart


@pytest.mark.parametrize("name", [*CONTINUOUS, "channels", "sign"])
def test_silence_stays_silent_and_touches_nothing(name: str) -> None:
    components = noise()
    components[1, 2] = 0
    components[2] = 0
    drawn = draw(name, components)
    assert drawn.isfinite().all()
    assert not drawn[1, 2].any()
    assert not drawn[2].any()
    assert (drawn[:2].flatten(2).any(2) == components[:2].flatten(2).any(2)).all()


@pytest.mark.parametrize("name", sorted(set(DRAWS) - {"tempo", "pitch"}))
def test_draws_follow_the_components_to_their_device(name: str) -> None:
    """The meta device refuses tensors of other devices, as an accelerator does (and ``istft`` altogether)."""
    assert draw(name, torch.empty(2, 3, 1, 40, device="meta")).device.type == "meta"


@pytest.mark.parametrize(("speed", "frames"), [(0.5, 6000), (0.93, 6001), (1.1, 6001), (3.0, 6000)])
def test_a_tone_of_the_segment_swings_as_often_in_another_length(speed: float, frames: int) -> None:
    components = tone(200, frames, frames).expand(1, 2, 1, frames)
    expected = tone(200, frames, round(frames / speed)).expand_as(components)
    torch.testing.assert_close(played(components, speed), expected, rtol=0, atol=1e-9)


def test_nothing_aliases_and_played_faster_the_segment_starts_again() -> None:
    """What lies above half the new Nyquist frequency is lost, not folded."""
    assert played(tone(150, 400, 400).expand(1, 1, 1, 400), 2.0).abs().max() < 1e-9
    twice = played(noise(time=400), 2.0)
    torch.testing.assert_close(twice[..., 200:], twice[..., :200], rtol=0, atol=0)


def test_speeds_are_even_on_a_logarithmic_scale() -> None:
    frames, cycles = 2048, 256
    components = tone(cycles, frames, frames).float().expand(300, 2, 1, frames)
    drawn = random_speed(components, (0.5, 2.0), generator=seeded())
    octaves = (torch.fft.rfft(drawn[:, :, 0]).abs().argmax(-1) / cycles).log2()
    check_uniform(octaves, -1, 1, tolerance=0.01)
    assert abs(torch.corrcoef(octaves.T)[0, 1]) < 4 / math.sqrt(300)


@pytest.mark.parametrize("frames", [400, 401])
def test_the_equaliser_keeps_the_level_of_every_component(frames: int) -> None:
    components = noise(time=frames) * torch.tensor([1e-4, 1.0, 30.0], dtype=torch.float64)[:, None, None]
    filtered = random_equaliser(components, 20.0, generator=seeded())
    energies = [signal.square().sum((2, 3)) for signal in (components, filtered)]
    torch.testing.assert_close(*energies, rtol=1e-6, atol=0)
    assert (filtered - components).square().sum((2, 3)).div(energies[0]).min() > 0.01


def test_the_curve_spreads_over_its_range_and_no_further() -> None:
    curves = gains_db(RATE, 6.0, batch=100)
    spread = curves.amax(-1) - curves.amin(-1)
    assert spread.max() <= 12 + 1e-4
    # of ten uniform draws the range is 9/11 of the width on average, its deviation 0.11 of it
    assert spread.mean() == pytest.approx(12 * 9 / 11, abs=4 * 12 * 0.11 / math.sqrt(200))


def test_the_curve_is_straight_between_ten_frequencies_an_even_ratio_apart() -> None:
    curves = gains_db(RATE, 12.0).flatten(0, 1)
    frequency = torch.arange(RATE // 2 + 1, dtype=torch.float64).clamp_min(50)  # Hz
    knots = 50 * 160 ** (torch.arange(EQUALISER_BANDS, dtype=torch.float64) / (EQUALISER_BANDS - 1))
    step = math.log(160) / (EQUALISER_BANDS - 1)
    hats = (1 - (frequency.log()[:, None] - knots.log()).abs() / step).clamp_min(0)
    levels = torch.linalg.lstsq(hats, curves.T).solution
    torch.testing.assert_close(hats @ levels, curves.T, rtol=0, atol=1e-3)
    assert levels.std(0).min() > 1


def strongest(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Frequency in Hz of the loudest bin of 1 Hz, and the fraction of all energy within 20 Hz of it."""
    power = torch.fft.rfft(signal * torch.hann_window(RATE, periodic=False), RATE).abs().square()
    place = power.argmax(-1)
    bins = torch.arange(power.shape[-1])
    near = (bins - place[..., None]).abs() <= 20
    return place, (power * near).sum(-1) / power.sum(-1)


@pytest.mark.parametrize(("hertz", "semitones"), [(3000, -12), (220, -3.5), (1000, 2), (220, 7)])
def test_the_pitch_of_a_tone_moves_by_its_semitones_and_its_level_and_length_stay(
    hertz: int, semitones: float
) -> None:
    components = 0.3 * tone(hertz, RATE, RATE).float().expand(1, 2, 2, RATE)
    moved = random_pitch(components, (semitones, semitones), generator=seeded())
    assert moved.shape == components.shape
    place, fraction = strongest(moved)
    assert (place - hertz * 2 ** (semitones / 12)).abs().max() <= 1
    assert fraction.min() > 0.99
    torch.testing.assert_close(moved.square().mean((2, 3)), components.square().mean((2, 3)))
    # and it sounds throughout
    pieces = moved.unflatten(-1, (10, -1)).square().mean(-1).sqrt() / (0.3 / math.sqrt(2))
    assert 0.8 < pieces.min() <= pieces.max() < 1.2


@pytest.mark.parametrize(("hertz", "tempo"), [(220, 0.5), (3000, 0.9), (1000, 1.2), (220, 2.0)])
def test_the_tempo_leaves_a_tone_its_pitch_and_level(hertz: int, tempo: float) -> None:
    components = 0.3 * tone(hertz, RATE, RATE).float().expand(1, 2, 2, RATE)
    played = random_tempo(components, (tempo, tempo), generator=seeded())
    assert played.shape == components.shape
    place, fraction = strongest(played)
    assert (place - hertz).abs().max() <= 1
    assert fraction.min() > 0.95  # where the segment starts again there is a seam
    level = played.square().mean().sqrt()
    assert float(level) == pytest.approx(0.3 / math.sqrt(2), rel=0.05)


def test_the_tempo_moves_events_to_where_they_belong() -> None:
    """A swell that is loudest after 0.375 s, played faster and slower; pitch leaves it there; up to a hop."""
    place = torch.arange(RATE, dtype=torch.float64) / RATE
    swell = tone(1000, RATE, RATE) * (-(((place - 0.375) / 0.1) ** 2)).exp()
    components = swell.float().expand(1, 1, 1, RATE)

    def middle(signal: Tensor) -> float:
        energy = signal.flatten().square()
        return float((energy * torch.arange(RATE)).sum() / energy.sum() / RATE)

    assert middle(components) == pytest.approx(0.375, abs=1e-3)
    slower = random_tempo(components, (0.75, 0.75), generator=seeded())
    assert middle(slower) == pytest.approx(0.375 / 0.75, abs=0.03)
    twice = random_tempo(components, (2.0, 2.0), generator=seeded())
    torch.testing.assert_close(twice[..., RATE // 2 :], twice[..., : RATE // 2], rtol=0, atol=0)
    assert middle(twice) == pytest.approx(0.375 / 2 + 0.25, abs=0.03)
    higher = random_pitch(components, (4, 4), generator=seeded())
    assert middle(higher) == pytest.approx(0.375, abs=0.03)


def test_pitches_are_uniform_and_tempi_even_on_a_logarithmic_scale() -> None:
    components = tone(1000, RATE, RATE).float().expand(60, 2, 1, RATE)
    place, _ = strongest(random_pitch(components, (-6, 6), generator=seeded()))
    semitones = 12 * (place[:, :, 0] / 1000).log2()
    check_uniform(semitones, -6, 6, tolerance=0.02)
    assert abs(torch.corrcoef(semitones.T)[0, 1]) < 4 / math.sqrt(60)
    # an impulse lies where the tempo puts it
    impulse = torch.zeros(60, 2, 1, 8192)
    impulse[..., 2048] = 1
    drawn = random_tempo(impulse, (0.5, 2.0), generator=seeded())[:, :, 0, :8192]
    octaves = (2048 / drawn[..., :7000].abs().argmax(-1)).log2().clamp(-2, 2)
    assert octaves.mean() == pytest.approx(0, abs=4 * 2 / math.sqrt(12 * 120) + 0.1)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_channels_are_swapped_and_signs_flipped_with_their_probability(probability: float) -> None:
    count = 1000
    components = noise(count, 1, 2, 4)
    swapped = random_channel_swap(components, probability, generator=seeded())
    flipped = random_sign_flip(components, probability, generator=seeded(1))
    for changed, other in ((swapped, components.flip(2)), (flipped, -components)):
        moved = (changed == other).all((2, 3))
        assert (moved | (changed == components).all((2, 3))).all()
        check_frequency(moved, probability)
        if 0 < probability < 1:
            assert abs(torch.corrcoef(moved.double().T)[0, 1]) < 4 / math.sqrt(count)
    mono = components[:, :, :1]
    assert torch.equal(random_channel_swap(mono, probability, generator=seeded()), mono)


@pytest.mark.parametrize("frames", [6000, 6001])
def test_without_change_every_augmentation_is_the_identity(frames: int) -> None:
    components = noise(time=frames).float()
    for same, tolerance in (
        (played(components, 1.0), 1e-5),
        (random_equaliser(components, 0.0, generator=seeded()), 1e-5),
        (random_pitch(components, (0, 0), generator=seeded()), 1e-4),
        (random_tempo(components, (1, 1), generator=seeded()), 1e-4),
    ):
        torch.testing.assert_close(same, components, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("augment", "value", "message"),
    [
        (random_speed, (0.0, 1.0), "speed=(0.0, 1.0): give positive numbers, the lower one first"),
        (random_speed, (-1.0, 1.0), "speed=(-1.0, 1.0): give positive numbers"),
        (random_speed, (1.2, 0.8), "speed=(1.2, 0.8): give positive numbers"),
        (random_tempo, (0.0, 1.0), "tempo=(0.0, 1.0): give positive numbers"),
        (random_pitch, (2, -2), "semitones=(2, -2): give two values"),
        (random_equaliser, -3.0, "range_db=-3.0: give 0 or more"),
        (random_channel_swap, 1.2, "probability=1.2: give a"),
        (random_sign_flip, -0.1, "probability=-0.1: give a"),
        (random_gains, (3, -3), "gain_db=(3, -3): give two values, the lower one first"),
        (random_snr, (3, -3), "snr_db=(3, -3): give two values, the lower one first"),
    ],
)
def test_a_mistake_is_one_line(augment: Callable[..., Tensor], value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        augment(noise(), value, generator=seeded())
    assert "\n" not in str(caught.value)
