"""Examples in docstrings, module by module, imported by their package names."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import encore

FOLDERS = ("cli", "common", "data", "inference", "metrics", "models", "reporting")
MODULES = [
    module.name
    for folder in FOLDERS
    for module in pkgutil.walk_packages(
        importlib.import_module(f"encore.{folder}").__path__, f"encore.{folder}."
    )
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_modules_are_those_of_the_package() -> None:
    assert encore.__name__ == "encore"
    assert len(MODULES) > 80
