"""The door to measures that are no code of this project: other people's networks, and files of your own.

    nisqa_mos, squim_pesq, distillmos, ...         published networks, their weights in a cache or a package
    torchscript:mos.pt?sample_rate=16000           a TorchScript file
    onnx:mos.onnx?sample_rate=16000&name=my_mos    an ONNX file

Nothing of them is imported, read or fetched before its door is opened. See docs/measures.md.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl

from encore.metrics.file_measures import RUNTIMES, FileQuality
from encore.metrics.network_measures import NETWORKS, NetworkQuality, fetch_weights
from encore.metrics.quality import Quality

DOOR_NAMES = tuple(NETWORKS)
"""Measures that `encore.metrics.get_quality` knows beside `encore.metrics.METRIC_NAMES`."""

_SWITCHES = {"true": True, "false": False}


def is_door(name: str) -> bool:
    """Whether a name is for `open_measure`: one of `DOOR_NAMES`, ``"utmos"``, or ``scheme:file``.

    >>> is_door("nisqa_mos"), is_door("onnx:mos.onnx?sample_rate=16000"), is_door("pesq")
    (True, True, False)
    """
    return name in (*DOOR_NAMES, "utmos") or _split(name) is not None


def open_measure(name: str, *, sample_rate: int) -> Quality:
    """Open a measure, so that whatever it lacks is found out now and not in the middle of a run.

    Args:
        name: One of `DOOR_NAMES`, or ``torchscript:FILE?key=value&...``, or ``onnx:FILE?...`` with the keys
            ``sample_rate`` (of the file, in Hz; audio of a higher rate is resampled), and, all optional,
            ``name`` (by default the file's), ``needs_reference=true`` for ``f(estimate, reference)``,
            ``negate=true`` where lower is better, ``scale`` (the difference that counts as one unit where
            measures are joined) and ``output`` (which of several numbers).
        sample_rate: Rate in Hz of the audio that it will be given.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there is no such measure, a package or weights are missing and cannot be fetched, an
            option is wrong, or the rate is below the measure's own.
    """
    if name == "utmos":
        raise ValueError(
            "name='utmos' is only published as code to be downloaded and executed: trace it once by "
            "torch.jit.trace and give torchscript:utmos.pt?sample_rate=16000&name=utmos, or use distillmos"
        )
    if name in NETWORKS:
        return NetworkQuality(name, sample_rate=sample_rate)
    parts = _split(name)
    if parts is None:
        raise ValueError(f"name={name!r} opens no measure: use one of {', '.join(DOOR_NAMES)}")
    runtime, file, query = parts
    if runtime not in RUNTIMES:
        near = get_close_matches(runtime, RUNTIMES, n=1, cutoff=0.4) or RUNTIMES
        raise ValueError(f"name={name!r} has the unknown scheme {runtime!r}: use {' or '.join(near)}")
    options = _options(name, query)
    if "sample_rate" not in options:
        raise ValueError(f"name={name!r} does not say which rate the file wants: add ?sample_rate=HZ")
    return FileQuality(
        runtime,
        Path(file),
        sample_rate=sample_rate,
        rate=_whole_number(name, options, "sample_rate"),
        name=options.get("name"),
        needs_reference=_switch(name, options, "needs_reference"),
        negate=_switch(name, options, "negate"),
        scale=_positive(name, options, "scale") if "scale" in options else None,
        output=_whole_number(name, options, "output") if "output" in options else None,
    )


def prefetch() -> list[tuple[str, str]]:
    """Fetch the weights of every measure of `DOOR_NAMES`, for machines without a network.

    Returns:
        For every measure its name, and where its weights lie or why they do not.
    """
    found = []
    for name in NETWORKS:
        try:
            found.append((name, str(fetch_weights(name))))
        except ValueError as error:
            found.append((name, str(error)))
    return found


def _split(name: str) -> tuple[str, str, str] | None:
    """Scheme, file and query of ``scheme:file?query``; None for anything else."""
    # two letters at least: C:\mos.pt is a path
    match = re.fullmatch(r"([A-Za-z][\w+.-]+):([^?]*)(?:\?(.*))?", name, flags=re.DOTALL)
    return None if match is None else (match[1], match[2], match[3] or "")


_KEYS = ("name", "sample_rate", "needs_reference", "negate", "scale", "output")


def _options(name: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1, cutoff=0.4) or _KEYS
            raise ValueError(f"name={name!r} has the unknown option {key!r}: use {', '.join(near)}")
    return options


def _switch(name: str, options: dict[str, str], key: str) -> bool:
    value = options.get(key, "false")
    if value not in _SWITCHES:
        raise ValueError(f"name={name!r} has {key}={value!r}: give true or false")
    return _SWITCHES[value]


def _whole_number(name: str, options: dict[str, str], key: str) -> int:
    if not options[key].isdecimal():
        raise ValueError(f"name={name!r} has {key}={options[key]!r}: give a whole number")
    return int(options[key])


def _positive(name: str, options: dict[str, str], key: str) -> float:
    try:
        value = float(options[key])
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"name={name!r} has {key}={options[key]!r}: give a number above 0")
    return value
