"""Weights of any project: read without running code, and set in a network by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encore.common.files import file_kind, opened_safetensors, read_safely

NESTS = ("state_dict", "model_state_dict", "state", "model")
"""Keys under which training scripts keep the weights, in the order in which they are looked for."""

PREFIXES = ("module.", "model.", "separator.", "network.", "_orig_mod.")
"""Prefixes that wrappers of networks put before the names of weights; also several in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """Which weights were loaded, and which were not.

    Attributes:
        loaded: Names that were found in the file and set in the network.
        missing: Names of the network that the file does not have; left as they were.
        unexpected: Names of the file that the network does not have.
        mismatched: Names in both, with the shape in the file and the shape in the network; left as they were.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def complete(self) -> bool:
        """Whether every weight of file and network found its counterpart."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """Return a line of counts, and a line for each weight that was not loaded."""
        lines = [
            f"weights: {len(self.loaded)} loaded, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        ]
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"unexpected: {name}" for name in self.unexpected]
        lines += [
            f"of another shape: {name} is {given} in the file and {wanted} in the network"
            for name, (given, wanted) in self.mismatched.items()
        ]
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the faults in one line, with the first names of each kind."""
        kinds = {
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "of another shape": list(self.mismatched),
        }
        parts = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in kinds.items() if names]
        return "; ".join(parts) or "all fit"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a file.

    Args:
        path: A safetensors file, or one of ``torch.save`` that is a state dictionary or holds one under
            a key of `NESTS`.

    Returns:
        Tensors on the CPU by name, the names as they are in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dictionary, or more than tensors and plain values.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or file_kind(path) == "safetensors":
        return read_safetensors(path)
    content = read_safely(path)
    found = state_dict_in(content)
    if found is None:
        held = (
            ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        )
        raise ValueError(
            f"'{path}' holds no state dictionary, neither as a whole nor under {', '.join(NESTS)}: "
            f"it holds {held}"
        )
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file by name, on the CPU; errors as `opened_safetensors`."""
    with opened_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def state_dict_in(content: Any) -> dict[str, Tensor] | None:
    """Return the state dictionary that a loaded file is, or holds under a key of `NESTS`; None if neither."""
    if not isinstance(content, Mapping):
        return None
    nested = [content[key] for key in NESTS if key in content]
    for candidate in (content, *nested):
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(value, Tensor) for value in candidate.values())
        ):
            return {str(name): value for name, value in candidate.items()}
    return None


def load_partially(
    module: nn.Module, weights: Mapping[str, Tensor], *, prefixes: Sequence[str] = PREFIXES
) -> LoadReport:
    """Set the weights of a network that a state dictionary has under the same name and in the same shape.

    Args:
        module: The network, changed in place.
        weights: Tensors by name.
        prefixes: Prefixes of names, also several in a row; those are removed that make the most names fit.

    Returns:
        Which weights were loaded.
    """
    expected = module.state_dict()
    named = _without_prefix(weights, expected.keys(), prefixes)
    mismatched = {
        name: (tuple(named[name].shape), tuple(expected[name].shape))
        for name in expected
        if name in named and named[name].shape != expected[name].shape
    }
    loaded = {name: named[name] for name in expected if name in named and name not in mismatched}
    module.load_state_dict(loaded, strict=False)
    return LoadReport(
        loaded=tuple(loaded),
        missing=tuple(name for name in expected if name not in named),
        unexpected=tuple(name for name in named if name not in expected),
        mismatched=mismatched,
    )


def load_completely(
    module: nn.Module, weights: Mapping[str, Tensor], origin: object, *, prefixes: Sequence[str] = PREFIXES
) -> None:
    """Set all weights of a network, like `load_partially`.

    Args:
        module: The network, changed in place.
        weights: Tensors by name.
        origin: Their file, for the error.
        prefixes: See `load_partially`.

    Raises:
        ValueError: If a weight is missing, unexpected or of another shape.
    """
    report = load_partially(module, weights, prefixes=prefixes)
    if not report.complete:
        raise ValueError(f"weights of '{origin}' do not fit {type(module).__name__}: {report.summary()}")


def _without_prefix(
    weights: Mapping[str, Tensor], expected: Any, prefixes: Sequence[str]
) -> dict[str, Tensor]:
    """Return the weights without the leading prefixes that make the most names fit."""
    runs = sorted({run for name in weights for run in _leading(name, prefixes)}, key=len)
    candidates = [{name.removeprefix(run): value for name, value in weights.items()} for run in runs]
    # two names that become one would lose a weight
    candidates = [candidate for candidate in candidates if len(candidate) == len(weights)]
    # the first of the best: shorter prefixes come first, and none at all before them
    return max(candidates, key=lambda candidate: sum(name in expected for name in candidate), default={})


def _leading(name: str, prefixes: Sequence[str]) -> list[str]:
    """Return every run of the prefixes that a name begins with, the empty one first."""
    runs = [""]
    while step := next((prefix for prefix in prefixes if name.startswith(runs[-1] + prefix)), None):
        runs.append(runs[-1] + step)
    return runs
