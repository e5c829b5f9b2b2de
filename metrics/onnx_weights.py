"""Read the weights of an ONNX file, without the onnx package, to compute its network in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# numbers of the fields of ModelProto, GraphProto and TensorProto, and of the type float32, in onnx.proto
_GRAPH = 7
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT32 = 1

# wire types of Protocol Buffers
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every float32 array that the graph of an ONNX model stores, by name.

    Raises:
        ValueError: If the file is no ONNX model with such arrays.

    Source: ``onnx.proto`` of the ONNX project and the wire format of Protocol Buffers.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for graph in _contents(memoryview(path.read_bytes()), _GRAPH):
        for tensor in _contents(graph, _INITIALIZER):
            if _integers(tensor, _DATA_TYPE) == [_FLOAT32]:
                name = b"".join(_contents(tensor, _NAME)).decode()
                data = b"".join([*_contents(tensor, _RAW_DATA), *_contents(tensor, _FLOAT_DATA)])
                arrays[name] = np.frombuffer(data, "<f4").reshape(_integers(tensor, _DIMS)).copy()
    if not arrays:
        raise ValueError(f"path={path.name} holds no float32 weights: give an ONNX model")
    return arrays


def _integers(message: memoryview, wanted: int) -> list[int]:
    """Return the integers that one field of a message holds."""
    return [value for field, value in _fields(message) if field == wanted and isinstance(value, int)]


def _contents(message: memoryview, wanted: int) -> list[memoryview]:
    """Return the bytes of the strings, arrays or messages that one field of a message holds."""
    return [value for field, value in _fields(message) if field == wanted and isinstance(value, memoryview)]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if wire_type == _LENGTH:
            size, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type} at byte {position} is unknown: give an ONNX model")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read an integer of 7 bits a byte; return it and where the next field begins."""
    value, shift = 0, 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
