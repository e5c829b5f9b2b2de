"""Read the weights of an ONNX file, without the onnx package, to compute its network in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# numbers of the fields of ModelProto, GraphProto and TensorProto, and of the type float32, in onnx.proto
_GRAPH = 7
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT32 = 1

# bytes of a field by its wire type in Protocol Buffers: fixed, or as many as the integer before them says
_FIXED = {1: 8, 5: 4}
_INTEGER, _LENGTH = 0, 2


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every float32 array that the graph of an ONNX model stores, by name.

    Raises:
        ValueError: If the file is no ONNX model with such arrays.

    Source: ``onnx.proto`` of the ONNX project and the wire format of Protocol Buffers.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for graph in _fields(memoryview(path.read_bytes()), _GRAPH):
        for tensor in _fields(graph, _INITIALIZER):
            if list(_fields(tensor, _DATA_TYPE)) == [_FLOAT32]:
                name = b"".join(_fields(tensor, _NAME)).decode()
                data = b"".join([*_fields(tensor, _RAW_DATA), *_fields(tensor, _FLOAT_DATA)])
                arrays[name] = np.frombuffer(data, "<f4").reshape(list(_fields(tensor, _DIMS))).copy()
    if not arrays:
        raise ValueError(f"path={path.name} holds no float32 weights: give an ONNX model")
    return arrays


def _fields(message: memoryview, number: int) -> Iterator[Any]:
    """Yield the values, integers or bytes, of the fields of a message that have this number."""
    position = 0
    while position < len(message):
        key, position = _integer(message, position)
        kind = key & 7
        if kind not in (_INTEGER, _LENGTH, *_FIXED):
            raise ValueError(f"wire type {kind} at byte {position} is unknown: give an ONNX model")
        size = _FIXED.get(kind, 0)
        if kind in (_INTEGER, _LENGTH):
            value, position = _integer(message, position)
            size = value if kind == _LENGTH else 0
        if key >> 3 == number:
            yield value if kind == _INTEGER else message[position : position + size]
        position += size


def _integer(message: memoryview, position: int) -> tuple[int, int]:
    """Read an integer of 7 bits a byte; return it and the position after it."""
    value, shift = 0, 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
