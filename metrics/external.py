"""Metrics that are no code of this project: other people's networks, and files and functions of your own.

    nisqa_mos, squim_pesq, distillmos, ...         published networks, their weights in a cache or a package
    mos.pt?sample_rate=16000                       a graph: TorchScript, torch.export or ONNX
    python:mymetric:score?needs_reference=1        a function of your own code, which is run

Nothing of them is imported, read or fetched before a name is used. See docs/measures.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from encore.common.files import check_file, file_kind
from encore.common.graphs import GRAPHS
from encore.common.names import nearest
from encore.common.uri import Uri, check_scheme, convert_options, parse_uri
from encore.metrics.file_metrics import FileMetric
from encore.metrics.network_metrics import NETWORKS, NetworkMetric
from encore.metrics.python_metrics import FunctionMetric
from encore.metrics.quality import Metric

EXTERNAL_METRICS = tuple(NETWORKS)
"""Published networks that `encore.metrics.get_metric` knows beside `encore.metrics.METRIC_NAMES`."""

_SCHEMES = (*GRAPHS, "python")


def is_external(name: str) -> bool:
    """Return whether a name is for `open_metric`: one of `EXTERNAL_METRICS`, ``"utmos"``, a URI or a path.

    >>> is_external("nisqa_mos"), is_external("onnx:mos.onnx?sample_rate=16000"), is_external("pesq")
    (True, True, False)
    """
    return name in (*EXTERNAL_METRICS, "utmos") or re.search(r"[:./\\]", name) is not None


def open_metric(name: str, *, sample_rate: int) -> Metric:
    """Open a metric, so that missing packages, files and weights fail here and not in the middle of a run.

    Args:
        name: One of `EXTERNAL_METRICS`; or a graph, as ``FILE?key=value&...`` or with the scheme
            ``torchscript:``, ``exported:`` or ``onnx:``; or ``python:MODULE:FUNCTION?key=value&...``. See
            `encore.metrics.file_metrics.FileMetric` and `encore.metrics.python_metrics.FunctionMetric` for
            their options.
        sample_rate: Rate in Hz of the audio that it scores.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there is no such metric, a package or weights are missing and cannot be fetched, an
            option is invalid, or the rate is below the metric's own.
    """
    if name == "utmos":
        raise ValueError(
            "name='utmos' is only published as code to be downloaded and executed: trace it once by "
            "torch.jit.trace and give torchscript:utmos.pt?sample_rate=16000&name=utmos, or use distillmos"
        )
    if name in NETWORKS:
        return NetworkMetric(name, sample_rate=sample_rate)
    if not is_external(name):
        raise ValueError(
            f"name='{name}' is no external metric: use {', '.join(nearest(name, EXTERNAL_METRICS))}"
        )
    uri = parse_uri(name, argument="name")
    scheme = uri.scheme or _scheme_of_file(uri)
    check_scheme(uri, scheme, _SCHEMES)
    kind: Callable[..., Metric] = FunctionMetric if scheme == "python" else FileMetric
    source = (uri.rest,) if scheme == "python" else (scheme, Path(uri.rest))
    options = convert_options(uri, kind.__init__)
    return kind(*source, sample_rate, **options)


def _scheme_of_file(uri: Uri) -> str:
    """Return the scheme of a graph by its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no graph.
    """
    kind = file_kind(check_file(uri.rest))
    if kind in ("pickle", "safetensors"):
        raise uri.fault(
            "holds weights without a network: give a graph (torch.jit.save, torch.export.save or ONNX), or "
            "--guide 'python:MODULE:FUNCTION?sample_rate=16000' for code that loads them"
        )
    if kind == "unknown":
        raise uri.fault(f"is not a graph: give {', '.join(GRAPHS)}, or python:MODULE:FUNCTION")
    return kind
