from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio
import yaml
from bs_roformer import BSRoformer, MelBandRoformer
from demucs.apply import BagOfModels
from pretrained_toys import (
    BANDS,
    MEL,
    demucs_own,
    demucs_package,
    fails,
    roformer_files,
    tiny_demucs,
    tiny_torchaudio,
)
from safetensors.torch import save_file
from torch import Tensor

from encore.models import load_separator

pytestmark = pytest.mark.filterwarnings("ignore")
MIXTURE = 0.1 * torch.randn(2, 2, 3200, generator=torch.Generator().manual_seed(0))


def demucs_safetensors(path: Path, model: Any, **changes: str) -> None:
    """As ``tools/export_hf.py`` of demucs writes them."""

    def plain(value: Any) -> Any:
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}

    args, kwargs = model._init_args_kwargs
    metadata = {
        "klass": f"{type(model).__module__}.{type(model).__name__}",
        "args": json.dumps(args),
        "kwargs": json.dumps(kwargs, default=plain),
    }
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata | changes)


def test_torchaudio_takes_the_file_of_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    bundle = torchaudio.pipelines.HDEMUCS_HIGH_MUSDB_PLUS
    monkeypatch.setattr(bundle, "_model_factory_func", tiny_torchaudio)
    path = tmp_path / "hub" / "torchaudio" / "models" / "hdemucs_high_trained.pt"
    path.parent.mkdir(parents=True)
    torch.save(tiny_torchaudio().state_dict(), path)
    separator = load_separator("torchaudio:HDEMUCS_HIGH_MUSDB_PLUS")
    assert separator.sources == ("drums", "bass", "other", "vocals")
    assert (separator.sample_rate, separator.channels) == (44100, 2)
    fails("torchaudio:HDEMUCS", "torchaudio bundle 'HDEMUCS' is unknown: use HDEMUCS_HIGH_MUSDB")


def test_torchaudio_conv_tasnet_has_two_speakers(tmp_path: Path) -> None:
    bundle = torchaudio.pipelines.CONVTASNET_BASE_LIBRI2MIX
    network = bundle._model_factory_func().eval()
    torch.save(network.state_dict(), tmp_path / "c.pt")
    separator = load_separator(f"torchaudio:CONVTASNET_BASE_LIBRI2MIX?weights={tmp_path / 'c.pt'}")
    mixture = MIXTURE[:, :1, :801]
    with torch.no_grad():
        torch.testing.assert_close(separator(mixture)[:, :, 0], network(mixture))
    assert (separator.sources, separator.sample_rate) == (("speaker1", "speaker2"), 8000)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.ones(1)}}, tmp_path / "c.pt")
    uri = f"torchaudio:CONVTASNET_BASE_LIBRI2MIX?weights={tmp_path / 'c.pt'}"
    fails(uri, "do not fit ConvTasNet: ")
    fails(uri.replace("c.pt", "d.pt"), "d.pt' does not exist", FileNotFoundError)


@pytest.mark.parametrize("kind", ["hybrid", "transformer"])
@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
def test_demucs_opens_either_format(kind: str, suffix: str, tmp_path: Path) -> None:
    model = tiny_demucs(kind)
    path = tmp_path / f"a1b2{suffix}"
    if suffix == ".th":
        torch.save(demucs_package(model), path)
    else:
        demucs_safetensors(path, model)
    for uri in (f"demucs:{path}", f"demucs:a1b2?repo={tmp_path}"):
        separator = load_separator(uri)
        torch.testing.assert_close(separator(MIXTURE), demucs_own(model)(MIXTURE), rtol=1e-5, atol=1e-6)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("drums", "voice"), 44100, 2)


@pytest.mark.parametrize("length", [5511, 5512, 5513, 16000])
def test_demucs_is_cut_into_segments_only_where_its_transformer_needs_it(length: int, tmp_path: Path) -> None:
    model = tiny_demucs("transformer")
    assert int(model.segment * model.samplerate) == 5512
    torch.save(demucs_package(model), tmp_path / "a.th")
    mixture = 0.1 * torch.randn(1, 2, length, generator=torch.Generator().manual_seed(1))
    expected = demucs_own(model, split=length > 5512)(mixture)
    separated = load_separator(f"demucs:{tmp_path / 'a.th'}")(mixture)
    torch.testing.assert_close(separated, expected, rtol=1e-5, atol=1e-6)


def test_a_bag_is_a_weighted_mean(tmp_path: Path) -> None:
    models = [tiny_demucs("hybrid", 0), tiny_demucs("hybrid", 1)]
    weights = [[1.0, 0.0], [2.0, 1.0]]
    for name, model in zip(("one", "two"), models, strict=True):
        torch.save(demucs_package(model), tmp_path / f"{name}-12345678.th")
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump({"models": ["one", "two"], "weights": weights}))
    separator = load_separator(f"demucs:bag?repo={tmp_path}")
    expected = demucs_own(BagOfModels(models, weights))(MIXTURE)
    torch.testing.assert_close(separator(MIXTURE), expected, rtol=1e-5, atol=1e-6)
    first, second = (demucs_own(model)(MIXTURE) for model in models)
    torch.testing.assert_close(separator(MIXTURE)[:, 0], (first[:, 0] + 2 * second[:, 0]) / 3)
    torch.testing.assert_close(separator(MIXTURE)[:, 1], second[:, 1])


def test_demucs_names_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demucs_safetensors(tmp_path / "a1.safetensors", tiny_demucs())
    (tmp_path / "htdemucs_ft.yaml").write_text("models: ['a1']")
    fetched = []

    def download(repository: str, file: str, revision: None) -> str:
        fetched.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_separator("demucs:htdemucs_ft").sources == ("drums", "voice")
    assert fetched == [("adefossez/HTDemucs-ft", f) for f in ("htdemucs_ft.yaml", "a1.safetensors")]


def test_the_older_host_is_used_where_the_hub_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def absent(*args: object, **options: object) -> None:
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(demucs_package(tiny_demucs()), cache / "955717e8-8726e21a.th")
    assert load_separator("demucs:htdemucs").sources == ("drums", "voice")
    fails("demucs:htdemucz", "; use htdemucs, ")


def test_a_file_of_demucs_can_name_networks_only(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = tiny_demucs()
    path = tmp_path / "a.safetensors"
    command = json.dumps([["touch", str(marker)]])
    demucs_safetensors(path, model, klass="subprocess.Popen", args=command, kwargs="{}")
    fails(f"demucs:{path}", "names the class 'subprocess.Popen': only demucs.demucs.Demucs, ")
    demucs_safetensors(path, model, structure="{}")
    fails(f"demucs:{path}", "is quantised")
    torch.save(demucs_package(model) | {"klass": Fraction}, tmp_path / "a.th")
    fails(f"demucs:{tmp_path / 'a.th'}", "names the class <class 'fractions.Fraction'>")
    torch.save({"klass": type(model)}, tmp_path / "a.th")
    fails(f"demucs:{tmp_path / 'a.th'}", "is no model of demucs")
    assert not marker.exists()


def test_demucs_folders_that_lack_something(tmp_path: Path) -> None:
    fails(f"demucs:x?repo={tmp_path / 'none'}", "is no folder", FileNotFoundError)
    fails(f"demucs:x?repo={tmp_path}", f"is not in {tmp_path}: use a folder with models")
    (tmp_path / "bag.yaml").write_text("models: [gone]")
    fails(f"demucs:bag?repo={tmp_path}", "names gone, which is not in", FileNotFoundError)
    torch.save(demucs_package(tiny_demucs()), tmp_path / "gone.th")
    (tmp_path / "bag.yaml").write_text("{models: [gone], weights: [[1]]}")
    fails(f"demucs:bag?repo={tmp_path}", "bag 'bag' cannot be averaged: its 1 models must have")


def older(weights: dict[str, Tensor], shift: int) -> dict[str, Tensor]:
    """Weights under the names of bs-roformer 0.3, without what it did not have."""
    names = {}
    for name, value in weights.items():
        if "to_value_residual_mix" in name:
            continue
        place = re.match(r"layers\.(\d+)\.(\d+)\.(.*)", name)
        short = f"layers.{place[1]}.{int(place[2]) - shift}.{place[3]}" if place else name
        names[short.replace(".branch.", ".")] = value
    return names


@pytest.mark.parametrize("prefix", ["", "module."])
def test_roformers_of_before_residual_streams_are_opened(prefix: str, tmp_path: Path) -> None:
    # found equal to bs-roformer 0.3.10, which cannot be installed beside today's, on 2 x 3200 samples
    torch.manual_seed(0)
    network: Any = BSRoformer(**BANDS, num_residual_streams=1).eval()
    for part in network.modules():
        if hasattr(part, "to_value_residual_mix"):
            part.to_value_residual_mix = None
    weights = {prefix + name: value for name, value in older(network.state_dict(), 0).items()}
    uri = roformer_files(tmp_path, BANDS | {"linear_transformer_depth": 0}, weights)
    torch.testing.assert_close(load_separator(uri)(MIXTURE), network(MIXTURE).detach())
    network = MelBandRoformer(
        **MEL, num_residual_streams=1, add_value_residual=False, linear_transformer_depth=0
    ).eval()
    uri = roformer_files(tmp_path, MEL, older(network.state_dict(), 1))
    mono = MIXTURE[:, :1]
    torch.testing.assert_close(load_separator(uri)(mono)[:, 0], network(mono).detach())


def test_roformer_sources_follow_the_configuration(tmp_path: Path) -> None:
    uri = roformer_files(tmp_path, BANDS, BSRoformer(**BANDS).state_dict())
    text = (tmp_path / "model.yaml").read_text()
    assert "!!python/tuple" in text
    assert load_separator(uri).sources == ("vocals", "other")
    place = tmp_path / "other.yaml"
    place.write_text(text.replace("target_instrument: null", "target_instrument: vocals"))
    fails(f"{uri}?config={place}", "names 1 sources (vocals) for num_stems=2")
    place.write_text(text.replace("heads:", "head:"))
    fails(
        f"{uri}?config={place}",
        "model.head unknown to BSRoformer of this bs_roformer; nearest to the first: heads",
    )
    place.write_text(text.replace("dim: 8", "dim: eight"))
    fails(f"{uri}?config={place}", "does not fit BSRoformer")
    place.write_text(text.replace("!!python/tuple", "!!python/object/apply:os.system"))
    fails(f"{uri}?config={place}", "is not YAML of plain values")
    place.write_text("model: 1")
    fails(f"{uri}?config={place}", "holds no mapping 'model'")
    fails(f"{uri}?config={tmp_path / 'none.yaml'}", "none.yaml' is missing", FileNotFoundError)
