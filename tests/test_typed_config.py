"""Values of a configuration that are of no type which their classes take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from encore.cli.method_options import load_method
from encore.cli.overrides import CONFIGS, UserError
from encore.cli.run_folder import run_id
from encore.cli.typed_config import check_types

OmegaConf.register_new_resolver("run_id", run_id, replace=True)
GROUPS = ("data", "model", "module", "logger", "method", "trainer")


class Built:
    def __init__(
        self,
        count: int,
        part: float = 0.5,
        name: str | None = None,
        path: str | Path = "a",
        choice: Literal["a", "b"] = "a",
        many: Sequence[str] = (),
        by_name: Mapping[str, int] | None = None,
        call: Callable[[], int] | None = None,
        anything: Any = None,
        unsaid=None,
    ) -> None:
        pass


def node(**values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.Built", **values}


@pytest.mark.parametrize(
    "values",
    [
        {
            "count": 3,
            "part": 1,
            "name": None,
            "path": "b",
            "choice": "b",
            "many": ["a"],
            "by_name": {"a": 1},
        },
        {"count": 1e5, "call": {"_target_": "builtins.int"}, "anything": [1], "unsaid": "x", "other": 4},
        # a node may make anything, and what is looked up may be anything
        {"count": {"_target_": "builtins.int"}, "many": "${data.classes}", "name": "${name}"},
    ],
)
def test_what_fits_passes(values: dict[str, Any]) -> None:
    check_types({"a": [node(**values)]}, "")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"count": "two"}, r"a\.b\.count=two: give a whole number$"),
        ({"count": 2.5}, r"a\.b\.count=2\.5: give a whole number$"),
        ({"count": None}, r"count=None: give a whole number$"),
        ({"count": True}, r"count=True: give a whole number$"),
        ({"part": "x"}, r"part=x: give a number$"),
        ({"name": 3}, r"name=3: give a name or null$"),
        ({"choice": "c"}, r"choice=c: choose a or b$"),
        ({"many": "a"}, r"many=a: give a list such as \[A,B\]"),
        ({"call": "print"}, r"call=print: give a node \{_target_: \.\.\.\} or null$"),
        ({"by_name": [1]}, r"by_name=\[1\]: give "),
    ],
)
def test_what_does_not_is_named(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        check_types({"b": node(**values)}, "a")


def test_what_does_not_exist_is_left_to_hydra() -> None:
    check_types({"_target_": "no.such.thing", "a": "b"}, "model")


@pytest.mark.parametrize("group", GROUPS)
def test_all_configurations_compose_and_are_of_the_right_types(group: str) -> None:
    """What refers to other groups stays unresolved: it is not there without them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for name in sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")):
            config = compose(f"{group}/{name}")
            check_types(OmegaConf.to_container(config, resolve=False), "")
            if group == "model":
                folders = ("encore.models.separators.", "encore.models.denoisers.")
                assert config.model._target_.startswith(folders)


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("diffusion_prior", "method.posterior.solver=encore.inference.red_diff.RedDiff"),
        ("diffusion_prior", "method.posterior.start=noise"),
        ("diffusion_prior", "method.posterior.levels=abc"),
        ("diffusion_prior", "method.posterior.solver.guidance.schedule.strength=x"),
        ("multi_step", "method.search=inference.GoldenSection"),
        ("multi_step", "method.shifts=abc"),
        ("bridge", "method.sampler=Foo"),
    ],
)
def test_options_of_infer_are_checked(method: str, override: str) -> None:
    with pytest.raises(UserError, match=rf"^--set {override}: give "):
        load_method(method, overrides=[override])
