"""One call a step: what scores higher is taken at once, and only failures make it look elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from encore.inference.search import Trace


class GreedySearch:
    """One share a step: the last one that was taken, and around it where that fails.

    The estimate moves on with the first share that scores higher; there is no second candidate to beat.
    After failures the share is at a distance from the last one taken (from ``first``, if none was):
    ``width`` on the side of the estimate, as much on the side of the mixture, then half of it on either side,
    and so on; a place beyond an end of [0, 1] is left out. After ``patience`` failures in a row the item is
    finished: exactly, because this search would try nothing more.

    Args:
        first: Share of the first step, in [0, 1).
        width: Distance of the first neighbours, in (0, 0.5].
        patience: Failures in a row that finish an item, at least 1.
    """

    steps = None
    selects = True
    wants_slopes = False

    def __init__(self, first: float = 0.3, width: float = 0.2, patience: int = 4) -> None:
        if not 0 <= first < 1:
            raise ValueError(
                f"first={first}: give a share of the mixture in [0, 1); 1 is the one-step estimate"
            )
        if not 0 < width <= 0.5:
            raise ValueError(f"width={width}: give a distance of two shares in (0, 0.5]")
        if patience < 1:
            raise ValueError(f"patience={patience}: at least 1 share is tried")
        self.first = first
        self.width = width
        self.patience = patience

    def propose(self, trace: Trace) -> Tensor:
        """One share in one round."""
        items, tried = trace.ratios.shape
        if tried:
            return trace.ratios.new_empty(items, 0)
        centre, failures = self._stand(trace.chosen, items)
        return self._around(centre).gather(1, failures[:, None]).to(trace.ratios)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items that nothing is left to try for."""
        centre, failures = self._stand(trace.chosen, len(kept))
        following = (failures + 1).clamp_max(self.patience)
        nothing = self._around(centre).gather(1, following[:, None]).squeeze(1).isnan()
        return kept & nothing

    def _stand(self, chosen: Tensor, items: int) -> tuple[Tensor, Tensor]:
        """The last share taken, and how many steps in a row have failed since, each ``(b,)``."""
        centre = chosen.new_full((items,), self.first)
        failures = torch.zeros(items, dtype=torch.long, device=chosen.device)
        for shares in chosen:
            centre = shares.where(~shares.isnan(), centre)
            failures = torch.where(shares.isnan(), failures + 1, 0)
        return centre, failures.clamp_max(self.patience)

    def _around(self, centre: Tensor) -> Tensor:
        """What is tried after 0, 1, .. failures ``(b, patience + 1)``; NaN where nothing is left."""
        offsets = [0.0]
        for halving in range(self.patience):
            offsets += [-self.width * 0.5**halving, self.width * 0.5**halving]
        places = centre[:, None] + centre.new_tensor(offsets)
        inside = (places >= 0) & (places < 1)
        # those inside first, in order
        order = (~inside).long().argsort(dim=1, stable=True)
        places = places.where(inside, torch.nan).gather(1, order)[:, : self.patience]
        return torch.nn.functional.pad(places, (0, 1), value=torch.nan)
