"""Read the weights of an ONNX file, without the onnx package, to compute its network in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

# numbers of the fields of ModelProto, GraphProto and TensorProto, and of the type float32, in onnx.proto
_GRAPH = 7
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT32 = 1

GRU = (1, 0, 2)
"""Where ONNX, with update, reset and new gate, has torch's gates: reset, update, new."""
LSTM = (0, 2, 3, 1)
"""Where ONNX, with input, output, forget and cell gate, has torch's gates: input, forget, cell, output."""


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every float32 array that the graph of an ONNX model stores, by name, in their order.

    Raises:
        ValueError: If the file is no ONNX model with such arrays.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    try:
        for graph in _fields(path.read_bytes(), _GRAPH):
            for tensor in _fields(graph, _INITIALIZER):
                if _fields(tensor, _DATA_TYPE) == [_FLOAT32]:
                    data = b"".join(_fields(tensor, _RAW_DATA) + _fields(tensor, _FLOAT_DATA))
                    array = np.frombuffer(data, "<f4").reshape(_fields(tensor, _DIMS)).copy()
                    arrays[b"".join(_fields(tensor, _NAME)).decode()] = array
    except DecodeError:
        arrays = {}
    if not arrays:
        raise ValueError(f"path={path.name} holds no float32 weights: give an ONNX model")
    return arrays


def torch_gates(array: NDArray[np.float32], order: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the gates on the first axis of an array of a recurrence in torch's order, `GRU` or `LSTM`."""
    gates = np.split(array, len(order))
    return np.concatenate([gates[index] for index in order])


def _fields(message: bytes, number: int) -> list[Any]:
    """Return the values, integers or bytes, of the fields of a message that have this number."""
    fields = UnknownFieldSet(Empty.FromString(message))
    return [field.data for field in fields if field.field_number == number]
