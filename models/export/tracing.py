"""Make networks traceable for any length: some operations are traced as if for the example's length only."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes_config
from torch.nn import functional as F

from encore.common.errors import one_line


@contextmanager
def traceable(module: nn.Module, failure: str, *, script: bool = False) -> Iterator[None]:
    """Within this context, exporters leave the lengths of a module's inputs open, and are quiet.

    Every change is undone at the end, none changes a value beyond rounding.

    Args:
        module: What is traced.
        failure: What to say of it if that fails, before the reason.
        script: Whether by ``torch.jit.trace``, or by ``torch.export``.

    Raises:
        ValueError: If anything within fails.
    """
    with ExitStack() as changes:
        changes.enter_context(torch.no_grad())
        changes.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # exporters log over pages what their exceptions say
        changes.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        if not script:
            changes.enter_context(_whole_lstms())
            # else the example's length, whole frames or not, one frame or several, becomes a condition
            changes.enter_context(symbolic_shapes_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
            # a network of asteroid's has imported it
            if "asteroid" in sys.modules:
                changes.enter_context(_plain_asteroid())
        try:
            yield
        except Exception as error:  # a network's own code runs here, and exporters raise many types
            cause: BaseException = error
            while cause.__cause__ is not None:  # converters wrap theirs
                cause = cause.__cause__
            raise ValueError(f"{_name(module)} {failure}: {one_line(cause)}") from error


def _name(module: nn.Module) -> str:
    network = getattr(module, "separator", module)
    inner = getattr(network, "network", None)
    return type(network if inner is None else inner).__name__


@contextmanager
def _whole_lstms() -> Iterator[None]:
    """Trace an LSTM as the one operation that it is.

    torch 2.11 finds the shapes of its results by running through the steps of the example, which fixes their
    number, in each of three places. All it needs are the shapes.
    """
    from torch._decomp import decomposition_table
    from torch._subclasses.fake_impls import op_implementations_dict

    lstm = torch.ops.aten.lstm.input
    composite = torch._C.DispatchKey.CompositeImplicitAutograd

    def on_fake_tensors(mode: Any, _operation: Any, *arguments: Any, **keywords: Any) -> Any:
        with mode:
            return _lstm_shapes(*arguments, **keywords)

    lstm._dispatch_cache.clear()
    try:
        with (
            patch.dict(lstm.py_kernels, {composite: _lstm_shapes}),
            patch.dict(op_implementations_dict, {lstm: on_fake_tensors}),
            patch.dict(decomposition_table, {lstm: _lstm_shapes}),
        ):
            yield
    finally:
        lstm._dispatch_cache.clear()


def _lstm_shapes(
    sequence: Tensor, states: tuple[Tensor, Tensor], *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors of the shapes that ``aten::lstm`` returns."""
    hidden, cell = states
    _weights, _has_biases, _layers, _dropout, _train, bidirectional, _batch_first = options
    features = hidden.shape[2] * (2 if bidirectional else 1)
    out = sequence.new_empty((*sequence.shape[:2], features))
    return out, torch.empty_like(hidden), torch.empty_like(cell)


@contextmanager
def _plain_asteroid() -> Iterator[None]:
    """Replace those functions of asteroid that turn shapes into tensors, or a length into a table."""
    from asteroid.dsp.overlap_add import DualPathProcessing
    from asteroid.masknn import norms
    from asteroid.models import base_models, sudormrf

    def global_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
        return norms.z_norm(x, list(range(1, x.ndim)), eps)

    def feature_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
        return norms.z_norm(x, list(range(2, x.ndim)), eps)

    def pad(x: Tensor, multiple: int) -> Tensor:
        return F.pad(x, (0, (multiple - x.shape[-1] % multiple) % multiple))

    with (
        patch.object(norms, "_glob_norm", global_norm),
        patch.object(norms, "_feat_glob_norm", feature_norm),
        patch.object(base_models, "jitable_shape", lambda x: x.shape),
        patch.object(sudormrf, "pad", pad),
        patch.object(DualPathProcessing, "unfold", _unfold),
        patch.object(DualPathProcessing, "fold", _fold),
    ):
        yield


def _unfold(self: Any, x: Tensor) -> Tensor:
    """``(b, n, t)`` to overlapping chunks ``(b, n, chunk, number)``, by a convolution with unit pulses."""
    batch, features, self.n_orig_frames = x.shape
    pulses = torch.eye(self.chunk_size, device=x.device)[:, None]
    flat = x.reshape(batch * features, 1, -1)
    chunks = F.conv1d(flat, pulses, stride=self.hop_size, padding=self.chunk_size)
    return chunks.reshape(batch, features, self.chunk_size, chunks.shape[-1])


def _fold(self: Any, x: Tensor, output_size: int | None = None) -> Tensor:
    """Overlap-add of chunks ``(b, n, chunk, number)`` to ``(b, n, t)``: the transposed convolution."""
    time = self.n_orig_frames if output_size is None else output_size
    batch, features, size, number = x.shape
    pulses = torch.eye(size, device=x.device)[:, None]
    summed = F.conv_transpose1d(x.reshape(batch * features, size, number), pulses, stride=self.hop_size)
    return summed[..., size : size + time].reshape(batch, features, time) / (size / self.hop_size)
