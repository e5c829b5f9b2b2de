"""Models stored as graphs: TorchScript, programs of ``torch.export`` and ONNX.

All are programs of their runtimes' operators; nothing in the files is unpickled or run as Python.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import check_file, tensors_only
from encore.common.packages import require

METADATA = "encore"
"""Under this name a graph may hold text about itself: ``encore.yaml``, or an entry of ONNX metadata."""

_FUNCTIONS = (
    "Add|Mul|Pow|Integer|Rational|Half|One|Zero|NegativeOne|Infinity|NegativeInfinity|Max|Min|Mod|Abs|floor|"
    "ceiling|true|false|oo|Equality|Unequality|And|Or|Not|FloorDiv|PythonMod|CleanDiv|CeilDiv|CeilToInt|"
    "(?:Strict)?(?:Greater|Less)Than|FloorToInt|TruncToInt|RoundToInt|ToFloat|IntTrueDiv|FloatTrueDiv|"
    "PowByNatural|FloatPow|ModularIndexing|Where|Identity"
)
# torch evaluates size expressions as Python, and looks targets up by name from the torch module on:
# only sums and products of named sizes may be evaluated, and only operators looked up
_EXPRESSION = re.compile(
    r"(?:Symbol\('\w+'(?:, \w+=(?:True|False))*\)|Float\('[\d.e+-]+', precision=\d+\)|"
    rf"\b(?:{_FUNCTIONS})\b|\b[su]\d+\b|\d|[-+*/(), <>=.])*+"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchaudio)\.\w+(\.\w+)?|_operator\.[a-z]\w*|torch\.sym_\w+|"
    r"math\.[a-z]\w*|torch\._sym_\w+|torch\.ops\._\w+\.[a-z]\w*"
)
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Graph(nn.Module):
    """A graph of a file, called on tensors; of several outputs the first is returned.

    Attributes:
        metadata: The text of `METADATA`; empty if there is none.
        inputs: How many tensors it takes; None if the file does not say.
        outputs: How many it returns; None likewise.
        batch: Items that it takes, if it takes no other number.
        length: Samples that it takes, if it takes no other number.
        shortest: Samples that it takes at least.
        call: Returns all outputs, or the only one.
    """

    metadata: str = ""
    inputs: int | None = None
    outputs: int | None = None
    batch: int | None = None
    length: int | None = None
    shortest: int = 1
    call: Callable[..., Any]

    def forward(self, *signals: Tensor) -> Tensor:
        """Return the first output."""
        outputs = self.call(*signals)
        first = outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs
        if not isinstance(first, Tensor):
            raise ValueError(f"the graph returns a {type(first).__name__}, not a tensor")
        return first


class ScriptGraph(Graph):
    """A file of ``torch.jit.save``."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        extra = {f"{METADATA}.yaml": ""}
        try:
            script: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location="cpu", _extra_files=extra
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"'{path}' is not a TorchScript file: {one_line(error)}") from error
        self.metadata = _text(extra)
        self.call = script.eval()


class ExportedGraph(Graph):
    """A file of ``torch.export.save``, refused if it could run code when it is loaded or called."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        _screen(path)
        extra = {f"{METADATA}.yaml": ""}
        try:
            with tensors_only(), warnings.catch_warnings():
                # its tensors share the bytes of the file, which nothing writes to
                warnings.simplefilter("ignore", UserWarning)
                program = torch.export.load(str(path), extra_files=extra)
        except Exception as error:  # it raises whatever its parts raise
            raise ValueError(f"'{path}' is not a program of torch.export: {one_line(error)}") from error
        signature = program.graph_signature
        if not signature.user_inputs:
            raise ValueError(f"'{path}' is a program without inputs: export one that takes a waveform")
        self.metadata = _text(extra)
        self.inputs, self.outputs = len(signature.user_inputs), len(signature.user_outputs)
        node = next(node for node in program.graph.nodes if node.name == signature.user_inputs[0])
        batch, length = node.meta["val"].shape[0], node.meta["val"].shape[-1]
        self.batch = batch if isinstance(batch, int) else None
        self.length = length if isinstance(length, int) else None
        if self.length is None and (bounds := program.range_constraints.get(length.node.expr)) is not None:
            self.shortest = max(1, int(bounds.lower))
        self.call = program.module()

    def train(self, mode: bool = True) -> ExportedGraph:
        """Set the flag alone: the export fixed evaluation or training, and the program refuses to change."""
        self.training = mode
        return self


class OnnxGraph(Graph):
    """An ONNX file, called in float32 and without gradients by onnxruntime on the device of its inputs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        session = self._open("cpu")
        self._sessions = {"cpu": session}
        self.metadata = session.get_modelmeta().custom_metadata_map.get(METADATA, "")
        self.inputs, self.outputs = len(session.get_inputs()), len(session.get_outputs())
        shape = session.get_inputs()[0].shape
        self.batch, self.length = (size if isinstance(size, int) else None for size in (shape[0], shape[-1]))
        # a tensor to move, so that the device of this module is known
        self.register_buffer("placeholder", torch.zeros(0), persistent=False)

    def call(self, *signals: Tensor) -> list[Tensor]:
        """Run a session; one is opened for each kind of device.

        Raises:
            ValueError: If onnxruntime has nothing that runs on the device, or the number of inputs is wrong.
        """
        if len(signals) != self.inputs:
            raise ValueError(f"the graph takes {self.inputs} inputs, not {len(signals)}")
        kind = signals[0].device.type
        if kind not in self._sessions:
            self._sessions[kind] = self._open(kind)
        session = self._sessions[kind]
        names = [put.name for put in session.get_inputs()]
        values = [signal.detach().float().contiguous().cpu().numpy() for signal in signals]
        outputs = session.run(None, dict(zip(names, values, strict=True)))
        return [torch.from_numpy(output).to(signals[0]) for output in outputs]

    def _open(self, kind: str) -> Any:
        onnxruntime: Any = require("onnxruntime", needed_by=f"'{self.path}'", extra="onnx")
        provider = _PROVIDERS.get(kind)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"onnxruntime does not run on '{kind}' here: pip install onnxruntime-gpu, or use cpu"
            )
        options = onnxruntime.SessionOptions()
        # its default, all cores, would compete with the threads of a refinement
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=[provider])
        except Exception as error:  # its classes derive from Exception alone
            raise ValueError(
                f"'{self.path}' is not an ONNX graph that runs here: {one_line(error)}"
            ) from error


GRAPHS: dict[str, Callable[[Path], Graph]] = {
    "torchscript": ScriptGraph,
    "exported": ExportedGraph,
    "onnx": OnnxGraph,
}
"""What loads a graph, by the kind of its file; see `encore.common.files.file_kind`."""


def load_graph(path: str | Path, kind: str) -> Graph:
    """Load a graph on the CPU, in evaluation mode.

    Args:
        path: The file.
        kind: One of `GRAPHS`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, could run code, or needs a package that is not installed.
    """
    return GRAPHS[kind](check_file(path))


def _text(extra: dict[str, Any]) -> str:
    text = extra[f"{METADATA}.yaml"]
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _screen(path: Path) -> None:
    """Raise a ValueError for an exported program that could run code when it is loaded or called."""
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = [name for name in archive.namelist() if "aotinductor" in name]
            graphs = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ValueError(f"'{path}' is not a program of torch.export: {one_line(error)}") from error
    if compiled:
        raise ValueError(
            f"'{path}' holds compiled code ({compiled[0]}): export it again with torch.export.save"
        )
    for key, text in (pair for graph in graphs for pair in _strings(graph)):
        pattern = {"expr_str": _EXPRESSION, "target": _TARGET}.get(key)
        if pattern is not None and not pattern.fullmatch(text):
            raise ValueError(
                f"'{path}' is refused: its {key} '{text[:60]}' is no plain operator or size of torch"
            )


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string of nested JSON with its key."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, key)
    elif isinstance(node, str):
        yield key, node
