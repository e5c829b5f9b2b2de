"""The order of sources that have no names of their own, such as the speakers of a mixture.

A separator trained without a fixed order gives its estimates in any order, another one for every blend or
segment. These functions put them into an order that is known: of the estimates before, or of the references.
Where only some sources come in any order, such as two speakers beside a sound, those of a group change
places among themselves.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from encore.metrics.reference import si_sdr
from encore.models.types import Groups


def matching_order(estimates: Tensor, known: Tensor, interchangeable: bool | Groups = True) -> Tensor:
    """The order of estimates in which they are closest to signals whose order is known.

    Args:
        estimates: ``(b, s, c, t)``.
        known: Same shape.
        interchangeable: Whether sources may change places with one another, or groups of those that may.

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
    return best_assignment(
        torch.einsum("bkct,bect->bke", known.double(), estimates.double()), interchangeable
    )


def reference_order(estimates: Tensor, references: Tensor, interchangeable: bool | Groups = True) -> Tensor:
    """The order of estimates ``(b, s, c, t)`` with the best mean SI-SDR for references of that shape.

    Args:
        estimates: See above.
        references: See above.
        interchangeable: As in `matching_order`.

    Returns:
        ``(b, s)`` indices into the sources of ``estimates``; a silent reference takes what is left.
    """
    count = references.shape[1]
    scores = [
        si_sdr(estimates, references[:, [index]].expand_as(estimates)).mean(-1) for index in range(count)
    ]
    return best_assignment(torch.stack(scores, dim=1), interchangeable)


def best_assignment(scores: Tensor, interchangeable: bool | Groups = True) -> Tensor:
    """The assignment with the largest sum of scores.

    Args:
        scores: ``(b, known, estimate)``, square; NaN counts as 0.
        interchangeable: As in `matching_order`.

    Returns:
        ``(b, known)``: the estimate for each known signal.

    >>> scores = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    >>> best_assignment(scores).tolist(), best_assignment(scores, [[0, 1]]).tolist()
    ([[2, 1, 0]], [[1, 0, 2]])
    """
    count = scores.shape[1]
    order = torch.arange(count).repeat(len(scores), 1)
    matrices = scores.nan_to_num(0.0).cpu()
    if isinstance(interchangeable, bool):
        interchangeable = [range(count)] if interchangeable else []
    for places in interchangeable:
        group = torch.tensor(places, dtype=torch.long)
        for row, matrix in zip(order, matrices, strict=True):
            found = linear_sum_assignment(matrix[group][:, group].numpy(), maximize=True)[1]
            row[group] = group[torch.from_numpy(found)]
    return order.to(scores.device)


def reorder(signals: Tensor, order: Tensor) -> Tensor:
    """Signals ``(b, s, ...)`` in the order ``(b, s)``: source ``k`` of the result is ``order[:, k]``."""
    return signals[torch.arange(len(signals), device=signals.device)[:, None], order]
