"""The probe of a separator in training: what it logs and writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from toys import toy_data, toy_module, toy_trainer

from encore.callbacks.bridge_probe import BridgeProbe
from encore.inference.theory import norms, path_errors


def test_it_logs_and_writes_what_the_trained_separator_does(tmp_path: Path, corpus: Path) -> None:
    probe, trained, data = BridgeProbe(items=None, ratios=(0.0, 0.5, 1.0)), toy_module(), toy_data(corpus)
    logger = CSVLogger(tmp_path)
    toy_trainer(tmp_path, callbacks=[probe], logger=logger).fit(trained, data)
    frame = pd.read_parquet(tmp_path / "bridge_path.parquet")
    assert sorted(set(frame["item"])) == ["p226_001", "p226_002", "p287_001"]
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv").iloc[-1]
    deltas = []
    for batch in data.val_dataloader():
        mixture, reference = batch["mixture"], batch["references"][:, 0]
        with torch.no_grad():
            deltas.append(float(norms(trained.separator(reference)[:, 0] - reference) / norms(reference)))
            errors = path_errors(lambda x: trained.separator(x)[:, 0], reference, mixture, (0.0, 0.5, 1.0))
        own = frame[(frame["item"] == batch["names"][0]) & (frame["what"] == "separator")]
        assert own["error"].tolist() == pytest.approx(errors.tolist(), rel=1e-5)
    assert float(logged["val/bridge/delta"]) == pytest.approx(sorted(deltas)[1], rel=1e-5)
    assert {
        "val/bridge/secant",
        "val/bridge/error_r0",
        "val/bridge/error_r50",
        "val/bridge/error_r100",
    } <= set(logged.index)
    assert (tmp_path / "bridge_path.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"items": 0}, "items=0"),
        ({"every_n_epochs": -1}, "every_n_epochs=-1"),
        ({"ratios": (1.2,)}, "1.2"),
        ({"source": "drums"}, "source=drums: the separator has speech"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        BridgeProbe(**options).measure(SimpleNamespace(), toy_module())
