from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from separator_toys import check_stated_costs, close, configured, noise

from encore.models import load_separator
from encore.models.acceleration import accelerate, has_bfloat16_lstm
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import parameters
from encore.models.separators.hdemucs import FFT_LENGTHS, HDemucs, nearest_fft_length
from encore.models.types import LoadedSeparator

SIZES = ("tiny", "small", "medium", "large")
RATES = (8000, 16000, 22050, 44100)


def built(sources: tuple[str, ...] = ("speech",), sample_rate: int = 16000, channels: int = 1) -> HDemucs:
    torch.manual_seed(0)
    return HDemucs(sources, sample_rate, channels, width=4, depth=5).eval()


@pytest.mark.parametrize("size", SIZES)
def test_stated_sizes_and_costs(size: str) -> None:
    check_stated_costs(f"hdemucs_{size}", counted=size in ("tiny", "large"))


def test_the_largest_is_the_published_one_and_the_smallest_trains_on_a_laptop() -> None:
    stems = ("drums", "bass", "other", "vocals")
    with torch.device("meta"):
        assert parameters(instantiate(configured("hdemucs_large", stems, 44100, 2))) == 83_639_368
        assert parameters(instantiate(configured("hdemucs_tiny"))) < 1e6


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_contract_at_every_rate(sample_rate: int, channels: int) -> None:
    separator = built(("a", "b"), sample_rate, channels)
    assert isinstance(separator, LoadedSeparator)
    assert (separator.sources, separator.sample_rate, separator.channels) == (
        ("a", "b"),
        sample_rate,
        channels,
    )
    with torch.no_grad():
        assert separator(noise(2, channels, 3001)).shape == (2, 2, channels, 3001)


def test_fft_lengths_follow_the_rate() -> None:
    assert [nearest_fft_length(4096 / 44100, rate) for rate in (*RATES, 32000, 48000)] == [
        1024,
        2048,
        2048,
        4096,
        4096,
        4096,
    ]


@pytest.mark.parametrize("fft_length", FFT_LENGTHS)
def test_every_fft_length_runs_at_its_least_depth(fft_length: int) -> None:
    least = {256: 3, 1024: 4, 2048: 5, 4096: 5, 16384: 6}[fft_length]
    options = {"sources": ["a"], "sample_rate": 1000, "channels": 1, "width": 4}
    options["window_seconds"] = fft_length / 1000
    separator = HDemucs(**options, depth=least).eval()
    with torch.no_grad():
        assert separator(noise(1, 1, 700)).shape == (1, 1, 1, 700)
    with pytest.raises(ValueError, match=f"depth={least - 1} is too small for an FFT of {fft_length}"):
        HDemucs(**options, depth=least - 1)


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 767, 768, 1023, 1025, 8000])
def test_any_length_comes_out_as_it_went_in(length: int) -> None:
    separator = built()
    with torch.no_grad():
        estimates = separator(noise(2, 1, length))
    assert estimates.shape == (2, 1, 1, length)
    assert estimates.isfinite().all()


def test_whole_hops_give_what_the_bare_network_gives_of_a_normalised_mixture() -> None:
    separator, mixture = built(("a", "b"), channels=2), 3 + noise(2, 2, 512 * 6)
    mono = mixture.double().mean(dim=1)
    mean, deviation = (value.float()[:, None, None] for value in (mono.mean(-1), mono.std(-1, correction=0)))
    with torch.no_grad():
        bare = separator.network((mixture - mean) / deviation)
        close(separator(mixture), bare * deviation[:, None] + mean[:, None], relative=1e-5)


def test_padding_is_zeros_up_to_whole_hops() -> None:
    separator, mixture = built(), noise(1, 1, 512 * 6 - 100)
    mixture -= mixture.mean()
    padded = torch.cat([mixture / mixture.std(correction=0), torch.zeros(1, 1, 100)], dim=-1)
    with torch.no_grad():
        expected = separator.network(padded)[..., :-100] * mixture.std(correction=0)
        close(separator(mixture), expected, relative=1e-5)


def test_batch_mates_do_not_matter() -> None:
    separator, mixture = built(), noise(3, 1, 5001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        for index in range(2):
            close(together[index], separator(mixture[index : index + 1])[0])


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_level_and_offset_go_through(factor: float, offset: float) -> None:
    separator, mixture = built(), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * (mixture + offset)), factor * (separator(mixture) + offset), relative=1e-3)


def test_silence_gives_next_to_silence_and_finite_gradients() -> None:
    separator, mixture = built(channels=2).train(), torch.zeros(2, 2, 3000, requires_grad=True)
    estimates = separator(mixture)
    assert estimates.abs().max() < 1e-6
    estimates.square().sum().backward()
    learning = [p for p in separator.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() for p in (*learning, mixture))


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_every_trainable_parameter_learns(sample_rate: int) -> None:
    separator = built(("a", "b"), sample_rate).train()
    weights = noise(2, 2, 1, 6000, seed=1)
    (separator(noise(2, 1, 6000)) * weights).sum().backward()
    trainable = {name: p for name, p in separator.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.any()] == []
    # at 8 kHz the branches meet in the fourth layer, which has no normalisation
    assert len(list(separator.parameters())) - len(trainable) == (2 if sample_rate == 16000 else 0)


@pytest.mark.skipif(not has_bfloat16_lstm(), reason="no LSTM in bfloat16 on this CPU")
def test_it_runs_in_bfloat16() -> None:
    separator, mixture = built(), noise(1, 1, 4000)
    with torch.no_grad():
        expected = separator(mixture)
        accelerate(separator, precision="bf16")
        estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    assert 1e-6 < (estimates - expected).norm() / expected.norm() < 0.05


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    options = {"sources": ["a", "b"], "sample_rate": 8000, "channels": 2, "width": 4, "depth": 5}
    target = {"_target_": "encore.models.separators.hdemucs.HDemucs", **options}
    torch.manual_seed(0)
    separator, mixture = HDemucs(**options).eval(), noise(1, 2, 3000)
    save_separator(tmp_path / "saved.safetensors", separator, target)
    with torch.no_grad():
        # matrix products round differently where a file's weights lie in memory
        close(load_separator(tmp_path / "saved.safetensors")(mixture), separator(mixture), relative=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": "speech"}, "sources='speech'"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 0}, "channels=0"),
        ({"window_seconds": 0.0}, "window_seconds=0.0: give a positive time"),
        (
            {"window_seconds": 0.032},
            "window_seconds=0.032 is 512 samples at 16000 Hz, but FFT lengths are 256",
        ),
        ({"depth": 4}, "depth=4 is too small for an FFT of 2048: give 5 or more"),
        ({"width": 3}, "width=3 with growth=2: give a width of 4 or more"),
        ({"growth": 0}, "growth=0: give a width of 4 or more, a growth of 1 or more"),
        ({"growth": 1}, "width=8 with growth=1 gives layer 5 8 channels"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    complete = {"sources": ["a"], "sample_rate": 16000, "width": 8, "depth": 5} | options
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        HDemucs(**complete)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 100), (1, 1, 0)])
def test_wrong_mixtures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with 1 channel"):
        built()(torch.zeros(shape))
