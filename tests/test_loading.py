from __future__ import annotations

import re
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from pretrained_toys import Trap, bsrnn, fails, same
from separator_toys import described
from torch import Tensor, nn
from toys import toy_trainer

from encore import models
from encore.models import loading
from encore.models.checkpoint import instantiate, save_separator

NETWORK = described("BSRNN", ("speech",))
NAME = "encoders.0.projection.weight"
MIXTURE = 0.1 * torch.randn(2, 1, 700, generator=torch.Generator().manual_seed(0))


def lightning_file(path: Path, **changes: object) -> Path:
    module, config = bsrnn()
    content = {
        "state_dict": {f"separator.{name}": value for name, value in module.state_dict().items()},
        "hyper_parameters": {"model": config, "seed": 1},
    }
    torch.save(content | changes, path)
    return path


def test_round_trip_is_exact(tmp_path: Path) -> None:
    module, config = bsrnn()
    save_separator(tmp_path / "new" / "a.safetensors", module, config)
    loaded = models.load_separator(tmp_path / "new" / "a.safetensors")
    assert same(loaded.state_dict(), module.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded(MIXTURE), module(MIXTURE), rtol=0, atol=0)
    assert (loaded.sources, loaded.sample_rate, loaded.channels) == (("speech",), 8000, 1)
    assert not any(part.training for part in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_every_spelling_of_a_path_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lightning_file(tmp_path / "ab:c.ckpt")
    for uri in (path, str(path), f"file:{path}", f"{path}?level=none"):
        assert models.load_separator(uri).sources == ("speech",)
    monkeypatch.chdir(tmp_path)
    assert models.load_separator(Path("ab:c.ckpt")).sources == ("speech",)


class Training(lightning.LightningModule):
    def __init__(self, model: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.separator = instantiate(model)

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.separator(batch)[:, 0] - batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fitted(tmp_path: Path, average: EMAWeightAveraging | None) -> tuple[Path, Training]:
    module = Training(NETWORK)
    saver = ModelCheckpoint(dirpath=tmp_path, filename="run", every_n_train_steps=4)
    callbacks = [saver, *([average] if average else [])]
    trainer = toy_trainer(tmp_path, max_steps=4, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(module, torch.utils.data.DataLoader(MIXTURE, batch_size=1))
    return tmp_path / "run.ckpt", module


@pytest.mark.filterwarnings("ignore")
def test_lightning_checkpoints_hold_the_trained_weights_or_their_average(tmp_path: Path) -> None:
    path, module = fitted(tmp_path, None)
    assert same(models.load_separator(path).state_dict(), module.separator.state_dict())
    for start in (None, 100):
        path, _ = fitted(tmp_path / str(start), EMAWeightAveraging(decay=0.5, update_starting_at_step=start))
        content = torch.load(path, weights_only=True)
        raw, average = (
            {name.removeprefix("separator."): value for name, value in content[state].items()}
            for state in ("current_model_state", "state_dict")
        )
        assert not torch.equal(raw[NAME], average[NAME])
        # an average that never began is a copy of the initial weights
        assert same(models.load_separator(path).state_dict(), average if start is None else raw)
        assert same(models.load_separator(f"file:{path}?averaged=false").state_dict(), raw)


def test_objects_in_a_checkpoint_are_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = lightning_file(tmp_path / "a.ckpt", callbacks=Trap(marker))
    fails(
        path, "is refused: it is not a file of tensors and plain values, but of Python objects (posix.system)"
    )
    assert not marker.exists()


def test_objects_in_a_configuration_are_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "a.safetensors"
    save_separator(path, *bsrnn())
    path.with_suffix(".yaml").write_text(f"_target_: !!python/object/apply:os.system ['touch {marker}']")
    fails(path, "is not YAML")
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.nn.Linear",
        "torch.nn.modules.linear.Linear",
        "encore.models.costs.FlopCounterMode",
        "encore.models.checkpoint.save_separator",
        "encore.models.separators.bsrnn.nn.Linear",
        "encore.models.separators.bsrnn.Tensor",
        "encore.models.separators.asteroid._build",
        "encore.models.separators.asteroid.nearest",
        "encore.models.separators.bsrnn.BSRNN.forward",
        "encore.models.separators.missing.Network",
        "encore.models.separators..bsrnn.BSRNN",
        "encore.models.separators.bsrnn.BSRNN\n",
        "models.separators_evil.bsrnn.BSRNN",
        "",
        None,
        ["encore.models.separators.bsrnn.BSRNN"],
    ],
)
def test_only_own_networks_can_be_named(target: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="_target_"):
        instantiate(NETWORK | {"_target_": target})
    with pytest.raises(ValueError, match="_target_"):
        instantiate(NETWORK | {"architecture": {"_target_": target}})
    with pytest.raises(ValueError, match="_target_"):
        models.load_separator(
            lightning_file(tmp_path / "a.ckpt", hyper_parameters={"model": {"_target_": target}})
        )


def test_networks_that_a_module_merely_imports_cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encore.models.separators.bsrnn.Borrowed", nn.Linear, raising=False)
    with pytest.raises(ValueError, match="defines no such network"):
        instantiate(
            {"_target_": "encore.models.separators.bsrnn.Borrowed", "in_features": 1, "out_features": 1}
        )


def test_nested_networks_are_built() -> None:
    inner = NETWORK | {"sources": ["a", "b"]}
    outer = {
        "_target_": "encore.models.separators.contract.AdaptedSeparator",
        "network": inner,
        "sources": ["a"],
        "sample_rate": 8000,
        "channels": 1,
        "_convert_": "all",
    }
    assert type(instantiate(outer).network).__name__ == "BSRNN"
    with pytest.raises(ValueError, match="_partial_ is not supported"):
        instantiate(NETWORK | {"_partial_": True})


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    fails(tmp_path, "is not a file", FileNotFoundError)
    (tmp_path / "dir.ckpt").mkdir()
    fails(tmp_path / "dir.ckpt", "is not a file", FileNotFoundError)
    for name, content in (
        ("empty", b""),
        ("text", b"hello, world\n" * 9),
        ("cut", b"PK\x03\x04" + bytes(50)),
    ):
        for suffix in (".ckpt", ".safetensors"):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            path.with_suffix(".yaml").write_text(yaml.safe_dump(NETWORK))
            fails(path, f"{name}{suffix}' is not a ")
            fails(f"file:{path}", f"{name}{suffix}' is not a ")
    torch.save([1, 2], tmp_path / "list.ckpt")
    fails(f"file:{tmp_path / 'list.ckpt'}", "hyper_parameters['model'] is missing")
    bare = lightning_file(tmp_path / "a.ckpt", hyper_parameters={})
    fails(f"file:{bare}", "hyper_parameters['model'] is missing")
    fails(lightning_file(tmp_path / "a.ckpt", state_dict={"x": torch.ones(1)}), "holds no network")


def test_configurations_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_separator(path, *bsrnn())
    path.with_suffix(".yaml").write_text("- 1")
    fails(path, "holds no mapping")
    path.with_suffix(".yaml").write_text(yaml.safe_dump(NETWORK | {"depth": 3}))
    fails(path, "does not accept the configuration")
    path.with_suffix(".yaml").write_text(yaml.safe_dump(NETWORK | {"features": 4}))
    fails(path, f"of another shape ({NAME} is (8, 8) in the file and (4, 8) in the network")
    path.with_suffix(".yaml").unlink()
    fails(f"file:{path}", "a.yaml' is missing", FileNotFoundError)
    fails(path, "holds weights without an architecture, and no 'a.yaml' beside it describes one")


def test_separators_of_the_package_are_opened_by_name_and_the_default_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(models.load_separator().state_dict(), models.load_separator("deepfilternet:").state_dict())
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    module, config = bsrnn()
    save_separator(tmp_path / "s.safetensors", module, config)
    assert same(models.load_separator("shipped:s").state_dict(), module.state_dict())
    fails("shipped:t", "uri='shipped:t' is unknown: use shipped:s", ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"n_filters": torch.ones(1)}}, "config holds more than plain values: "),
        ({"_target_": "torch.nn.Linear"}, "is not allowed"),
    ],
)
def test_saving_checks_the_configuration(change: dict, message: str, tmp_path: Path) -> None:
    module, config = bsrnn()
    with pytest.raises(ValueError, match=re.escape(message)):
        save_separator(tmp_path / "a.safetensors", module, config | change)
    assert not list(tmp_path.iterdir())


def test_saving_checks_path_and_class(tmp_path: Path) -> None:
    module, config = bsrnn()
    with pytest.raises(ValueError, match=r"name a \.safetensors file"):
        save_separator(tmp_path / "a.pt", module, config)
    with pytest.raises(ValueError, match="is not the module's class Linear"):
        save_separator(tmp_path / "a.safetensors", nn.Linear(1, 1), config)
