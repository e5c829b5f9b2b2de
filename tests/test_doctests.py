"""Examples in docstrings, module by module, imported by their package names."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import encore

ROOT = Path(encore.__file__).parent
FOLDERS = (
    *("callbacks", "cli", "common", "data", "inference", "lightning_modules", "metrics", "models"),
    *("reporting", "synthetic_corpora"),
)
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
EXAMPLES = [file.relative_to(ROOT).with_suffix("") for file in FILES if ">>> " in file.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_in_docstrings_print_what_they_say(path: Path):
    name = ".".join(["encore", *path.parts]).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_examples_were_found():
    assert encore.__name__ == "encore"
    assert len(EXAMPLES) > 20
