"""Resolve the order of interchangeable sources, such as the speakers of a mixture.

A separator trained with a permutation-invariant loss gives its estimates in any order, another one for every
input or segment. These functions put them into a known order: of earlier estimates, or of the references.
Where only some sources are interchangeable, such as two speakers beside a sound, those of a group are
permuted among themselves.
"""

from __future__ import annotations

import torch
from einops import repeat
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from encore.metrics.reference import si_sdr
from encore.models.types import Groups


def matching_order(estimates: Tensor, known: Tensor, groups: Groups | None = None) -> Tensor:
    """Return the order of estimates in which they are closest to signals whose order is known.

    Args:
        estimates: ``(b, s, c, t)``.
        known: Same shape.
        groups: Positions of sources that may be permuted, group by group; None for all.

    Returns:
        ``(b, s)`` indices into the sources of ``estimates``: of all orders the one with the smallest sum of
        squared differences. Where nothing tells orders apart, such as in silence, sources stay in place.

    Raises:
        ValueError: If the shapes differ.

    >>> known = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    >>> matching_order(known.flip(1), known).tolist()
    [[1, 0]]
    """
    if estimates.shape != known.shape:
        raise ValueError(
            f"estimates have shape {tuple(estimates.shape)}, the known signals {tuple(known.shape)}: cut both"
            " to one"
        )
    # ||k - e||^2 summed over pairs differs between orders by the inner products only
    return best_assignment(torch.einsum("bkct,bect->bke", known.double(), estimates.double()), groups)


def reference_order(estimates: Tensor, references: Tensor, groups: Groups | None = None) -> Tensor:
    """Return the order of estimates ``(b, s, c, t)`` with the best mean SI-SDR for references of that shape.

    Args:
        estimates: See above.
        references: See above.
        groups: As in `matching_order`.

    Returns:
        ``(b, s)`` indices into the sources of ``estimates``; a silent reference takes what is left.
    """
    count = references.shape[1]
    every = repeat(estimates, "b e c t -> b k e c t", k=count)
    scores = si_sdr(every, repeat(references, "b k c t -> b k e c t", e=count))
    return best_assignment(scores.mean(-1), groups)


def best_assignment(scores: Tensor, groups: Groups | None = None) -> Tensor:
    """Return the assignment with the largest sum of scores.

    Args:
        scores: ``(b, known, estimate)``, square; NaN counts as 0.
        groups: As in `matching_order`.

    Returns:
        ``(b, known)``: the estimate for each known signal.

    >>> scores = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    >>> best_assignment(scores).tolist(), best_assignment(scores, [[0, 1]]).tolist()
    ([[2, 1, 0]], [[1, 0, 2]])
    """
    count = scores.shape[1]
    order = torch.arange(count).repeat(len(scores), 1)
    matrices = scores.nan_to_num(0.0).cpu()
    for positions in [range(count)] if groups is None else groups:
        group = torch.tensor(positions, dtype=torch.long)
        for row, matrix in zip(order, matrices, strict=True):
            found = linear_sum_assignment(matrix[group][:, group].numpy(), maximize=True)[1]
            row[group] = group[torch.from_numpy(found)]
    return order.to(scores.device)


def reorder(signals: Tensor, order: Tensor) -> Tensor:
    """Return signals ``(b, s, ...)`` in the order ``(b, s)``: source ``k`` becomes ``order[:, k]``."""
    return signals[torch.arange(len(signals), device=signals.device)[:, None], order]
