"""ONNX graphs, run by onnxruntime."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.graphs import KEY, GraphSeparator, about_graph, existing
from encore.models.weights import one_line

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(
    path: str,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    layout: str | None = None,
) -> nn.Module:
    """Open an ONNX graph of one input and one output.

    No gradients go through it, whatever the mixture asks for.

    Args:
        path: The file. What it does not say in its metadata under ``encore`` must be given.
        sources: Names of the estimated sources.
        sample_rate: Rate in Hz.
        channels: Channels of mixture and estimates; 1 where nothing is said.
        layout: ``bct`` or ``bt``; found by a call on noise where it is left out.

    Returns:
        The separator.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ONNX graph, or does not separate what is said.
    """
    file = existing(path)
    session = _session(file, "cpu")
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
        raise ValueError(f"'{path}' has the inputs and outputs {', '.join(names)}: one of each is needed")
    said = session.get_modelmeta().custom_metadata_map.get(KEY)
    about = about_graph(file, said, sources=sources, sample_rate=sample_rate, channels=channels)
    separator = OnnxSeparator(file, session, about)
    separator.find_layout(layout)
    return separator


class OnnxSeparator(GraphSeparator):
    """A session of onnxruntime on the device of the mixture; one is made for each kind of device.

    Args:
        path: The file.
        session: A session on the CPU.
        about: See `encore.models.pretrained.graphs.GraphSeparator`.
    """

    def __init__(self, path: Path, session: Any, about: dict[str, Any]) -> None:
        shape = session.get_inputs()[0].shape
        fixed = [size if isinstance(size, int) else None for size in shape]
        super().__init__(about, batch=fixed[0], length=fixed[-1])
        self.path = path
        self.sessions = {"cpu": session}
        # something for load_separator to move, so that infer.py knows where it lives
        self.register_buffer("place", torch.zeros(0), persistent=False)

    def run(self, waveform: Tensor) -> Tensor:
        """Call it in float32.

        Raises:
            ValueError: If onnxruntime has nothing that runs on the device.
        """
        kind = waveform.device.type
        if kind not in self.sessions:
            self.sessions[kind] = _session(self.path, kind)
        session = self.sessions[kind]
        values = waveform.detach().float().contiguous().cpu().numpy()
        (estimates,) = session.run(None, {session.get_inputs()[0].name: values})
        return torch.from_numpy(estimates).to(waveform)


def _session(path: Path, kind: str) -> Any:
    onnxruntime = import_module("onnxruntime")
    provider = _PROVIDERS.get(kind)
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(
            f"onnxruntime has nothing that runs on '{kind}' here: pip install onnxruntime-gpu, or use the cpu"
        )
    options = onnxruntime.SessionOptions()
    # its own choice, all cores, would compete with the lanes of a refinement
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its classes derive from Exception alone
        raise ValueError(f"'{path}' is not an ONNX graph that runs here: {one_line(error)}") from error
