"""Read the weights of an ONNX file, without the onnx package, to compute its network in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

# numbers of the fields of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, and of the type
# float32, in onnx.proto
_GRAPH = 7
_NODE, _INITIALIZER = 1, 5
_OUTPUT, _OPERATOR, _ATTRIBUTE = 2, 4, 5
_TENSOR = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT32 = 1


def read_weights(path: Path, content: bytes | None = None) -> dict[str, NDArray[np.float32]]:
    """Return every float32 array that the graph of an ONNX model stores, by name, in their order.

    Args:
        path: An ONNX file.
        content: What is in it, where it was read already, such as from an archive.

    Returns:
        Initializers, then the values of nodes ``Constant`` under the names of their outputs.

    Raises:
        ValueError: If the file is no ONNX model with such arrays.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    try:
        for graph in _fields(path.read_bytes() if content is None else content, _GRAPH):
            for name, tensor in _tensors(graph):
                if _fields(tensor, _DATA_TYPE) == [_FLOAT32]:
                    data = b"".join(_fields(tensor, _RAW_DATA) + _fields(tensor, _FLOAT_DATA))
                    arrays[name] = np.frombuffer(data, "<f4").reshape(_fields(tensor, _DIMS)).copy()
    except DecodeError:
        arrays = {}
    if not arrays:
        raise ValueError(f"path={path.name} holds no float32 weights: give an ONNX model")
    return arrays


def _tensors(graph: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and messages of the initializers of a graph, and of the values of its constants."""
    for tensor in _fields(graph, _INITIALIZER):
        yield b"".join(_fields(tensor, _NAME)).decode(), tensor
    for node in _fields(graph, _NODE):
        if _fields(node, _OPERATOR) == [b"Constant"]:
            for attribute in _fields(node, _ATTRIBUTE):
                for tensor in _fields(attribute, _TENSOR):
                    yield b"".join(_fields(node, _OUTPUT)).decode(), tensor


def _fields(message: bytes, number: int) -> list[Any]:
    """Return the values, integers or bytes, of the fields of a message that have this number."""
    fields = UnknownFieldSet(Empty.FromString(message))
    return [field.data for field in fields if field.field_number == number]
