"""What TorchScript, exported programs and ONNX graphs have in common: they say little about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from encore.models.pretrained.contract import OpenedSeparator
from encore.models.weights import one_line

KEY = "encore"
"""Under this name a file may say what it is, as YAML with ``sources``, ``sample_rate`` and ``channels``."""

LAYOUTS = {"bct": "(batch, channel, time)", "bt": "(batch, time)"}
"""What a graph may take; estimates may have a source axis after the batch, a channel axis, or both."""


class GraphSeparator(OpenedSeparator):
    """A graph that maps waveforms to waveforms; a door implements `run`.

    Args:
        about: ``sources``, ``sample_rate`` and ``channels``; see `about_graph`.
        length: Samples that the graph takes, where it takes no others.
        batch: Items that it takes, where it takes no others.
        shortest: Samples that it takes at least.

    Raises:
        ValueError: If the graph takes several items at a time only.
    """

    def __init__(
        self, about: dict[str, Any], *, length: int | None, batch: int | None, shortest: int = 1
    ) -> None:
        super().__init__(**about, shortest=length or shortest)
        if batch not in (None, 1):
            raise ValueError(
                f"the graph takes batches of {batch} only: export it with a free batch axis, or with 1"
            )
        self.length, self.batch = length, batch
        self.layout = "bct"

    def run(self, waveform: Tensor) -> Tensor:
        """Call the graph on what its layout wants."""
        raise NotImplementedError

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call the graph, item by item where it takes one at a time, and give the estimates all four axes.

        Raises:
            ValueError: If the mixture is longer than a graph of fixed length takes.
        """
        if self.length is not None and mixture.shape[-1] > self.length:
            raise ValueError(
                f"mixture has {mixture.shape[-1]} samples, and the graph takes {self.length}: cut it "
                f"into segments of {self.length} samples, {self.length / self.sample_rate:.4g} s, or export "
                "it with a free time axis"
            )
        given = mixture if self.layout == "bct" else mixture[:, 0]
        items = torch.split(given, 1) if self.batch == 1 else (given,)
        return self._with_all_axes(torch.cat([self.run(item) for item in items]))

    def find_layout(self, layout: str | None) -> None:
        """Set the layout that is given, or else the first that works on a second of soft noise.

        Raises:
            ValueError: If the layout is unknown or needs one channel, or none works.
        """
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"option layout={layout}: choose one of {', '.join(LAYOUTS)}")
        if layout == "bt" and self.channels > 1:
            raise ValueError(
                f"option layout=bt takes one channel, not channels={self.channels}: leave channels out"
            )
        possible = [layout] if layout else ["bct", "bt"][: 2 if self.channels == 1 else 1]
        length = self.length or max(self.sample_rate, self.shortest)
        noise = torch.randn(1, self.channels, length, generator=torch.Generator().manual_seed(0))
        found = []
        for self.layout in possible:
            try:
                with torch.no_grad():
                    self(0.1 * noise)
            except Exception as error:  # graphs fail in classes of their own
                found.append(f"{LAYOUTS[self.layout]} fails ({one_line(error)})")
            else:
                return
        raise ValueError(
            f"the graph does not separate {length} samples with sources={','.join(self.sources)} and "
            f"channels={self.channels}: {'; '.join(found)}"
        )

    def _with_all_axes(self, estimates: Tensor) -> Tensor:
        sources, channels = len(self.sources), self.channels
        if estimates.ndim == 2 and sources == channels == 1:
            return estimates[:, None, None]
        if estimates.ndim == 3 and channels == 1 and estimates.shape[1] == sources:
            return estimates[:, :, None]
        if estimates.ndim == 3 and sources == 1:
            return estimates[:, None]
        return estimates


def about_graph(
    path: Path,
    said: str | bytes | None,
    *,
    sources: tuple[str, ...] | None,
    sample_rate: int | None,
    channels: int | None,
) -> dict[str, Any]:
    """What a graph separates, from options, or else from what the file says.

    Args:
        path: The file, for messages.
        said: The YAML that the file holds, if any, as text or as bytes.
        sources: The option of that name. Where the file says more or fewer sources, opening fails later.
        sample_rate: The option; where the file says another rate, that of the file is the graph's.
        channels: The option; 1 where neither says it.

    Returns:
        ``sources``, ``sample_rate`` and ``channels``.

    Raises:
        ValueError: If one is not known.
    """
    try:
        content = yaml.safe_load(said) if said else {}
    except yaml.YAMLError as error:
        raise ValueError(f"'{path}': its metadata '{KEY}' are not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"'{path}': its metadata '{KEY}' hold no mapping of sources, sample_rate and channels"
        )
    about = {
        "sources": sources or content.get("sources"),
        "sample_rate": content.get("sample_rate") or sample_rate,
        "channels": channels or content.get("channels") or 1,
    }
    examples = {"sources": "speech,noise", "sample_rate": "16000"}
    for name, example in examples.items():
        if about[name] is None:
            raise ValueError(f"'{path}' does not say its {name}: add ?{name}={example}")
    if not isinstance(about["sample_rate"], int) or not isinstance(about["channels"], int):
        raise ValueError(
            f"'{path}': its metadata '{KEY}' hold a sample_rate or channels that is no whole number"
        )
    return about


def existing(path: str) -> Path:
    """The path of a file, or a FileNotFoundError in one line."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"'{path}' does not exist or is not a file: check the path")
    return Path(path)
