"""A learned search: a small network that has seen which shares paid off proposes the ones to try.

It looks at how mixture and estimate sound and at what the steps before have gained. `Recording` notes
both, and what every share would gain, during exhaustive refinements; `fit_share_model` fits the network
to it. Derived for this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from encore.inference.line_search import at_least_one
from encore.inference.search import Trace

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Mixture shares that are told apart: closer where gains change faster."""

_FRAME, _HOP = 512, 256
_EDGES = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Ends of the bands, as parts of half the sampling rate."""
_FLOOR = 1e-9
_ENTROPY = 0.02

_BANDS = range(len(_EDGES) - 1)
FEATURES = (
    *(f"{name}{band}" for name in ("left_db", "removed_db", "mixture_db") for band in ("", *_BANDS)),
    *(
        f"{name}_{signal}"
        for signal in ("mixture", "estimate", "residual")
        for name in ("flatness", "sparsity", "unsteadiness", "depth", "upper_depth")
    ),
    *(
        "residual_kurtosis",
        "cosine",
        "envelope_likeness",
        "envelope_likeness_mixture",
        "spectrogram_likeness",
    ),
    *("pause_mixture_db", "pause_left_db", "mask_mean", "mask_undecided", "mask_undecided_level"),
    *("first", "moves", "last_share", "last_gain", "last_gain_root", "gain", "gain_root", "share_and_gain"),
)
"""Names of what `features` returns, in its order."""


def features(
    mixture: Tensor,
    estimate: Tensor,
    *,
    moves: Tensor,
    last_share: Tensor,
    last_gain: Tensor,
    gain_so_far: Tensor,
) -> Tensor:
    """What the network is told; finite, and the same for mixture and estimate scaled alike.

    Levels, in dB, are means over sources and channels; bands are octaves below half the sampling rate.

    Args:
        mixture: ``(b, s, c, t)``, what the shares are shares of.
        estimate: ``(b, s, c, t)``, the previous estimates.
        moves: ``(b,)``, how many steps have changed the estimate.
        last_share: ``(b,)``, mixture share of the last one that did; 0 if none.
        last_gain: ``(b,)``, what it gained, in the measure's unit; 0 if none did.
        gain_so_far: ``(b,)``, gain over the one-step estimate.

    Returns:
        ``(b, n)``, a column for each of `FEATURES`.
    """
    columns = [
        *_sounds(mixture, estimate),
        (moves == 0).float(),
        moves.float().log1p(),
        last_share,
        last_gain,
        last_gain.clamp_min(0).sqrt(),
        gain_so_far,
        gain_so_far.clamp_min(0).sqrt(),
        last_share * last_gain.clamp_min(0).sqrt(),
    ]
    return torch.stack(columns, dim=1)


def _sounds(mixture: Tensor, estimate: Tensor) -> list[Tensor]:
    """The columns ``(b,)`` that are heard, in the order of `FEATURES`."""
    peak = torch.maximum(mixture.abs().amax((1, 2, 3)), estimate.abs().amax((1, 2, 3)))
    scale = peak.clamp_min(torch.finfo(mixture.dtype).tiny)[:, None, None, None]
    mixture, estimate = mixture / scale, estimate / scale
    residual = mixture - estimate
    whole, left = _spectrum(mixture), _spectrum(estimate)
    power = {"mixture": _power(whole), "estimate": _power(left), "residual": _power(whole - left)}
    wholes, lefts, removed = ([_level(x), *_bands(x)] for x in power.values())
    columns = [_db(part, of) for parts in (lefts, removed) for part, of in zip(parts, wholes, strict=True)]
    # the mixture's own level is relative to its peak, the bands' to the mixture
    columns += [_db(wholes[0], 1.0), *(_db(part, wholes[0]) for part in wholes[1:])]
    for signal in power.values():
        columns += _texture(signal)
    flat = residual.flatten(1)
    square, fourth = (flat.pow(order).mean(1).clamp_min(_FLOOR ** (order / 2)).log() for order in (2, 4))
    columns += [fourth - 2 * square, F.cosine_similarity(estimate.flatten(1), flat, dim=1)]
    mixed, kept, gone = (_db(signal, 1.0) for signal in (x.mean(1) for x in power.values()))
    columns += [_likeness(kept, gone), _likeness(kept, mixed)]
    columns.append(_likeness(*(_db(power[name], 1.0).flatten(1) for name in ("estimate", "residual"))))
    return columns + _pauses(power["mixture"], power["estimate"]) + _mask(power["mixture"], power["estimate"])


def _spectrum(signal: Tensor) -> Tensor:
    """Short-time spectra ``(b, s c, frequency, frame)`` of ``(b, s, c, t)``, by frames of 512 samples."""
    window = torch.hann_window(_FRAME, device=signal.device, dtype=signal.dtype)
    flat = signal.reshape(-1, signal.shape[-1])
    spectrum = torch.stft(flat, _FRAME, _HOP, window=window, pad_mode="constant", return_complex=True)
    return spectrum.reshape(len(signal), -1, *spectrum.shape[-2:])


def _power(spectrum: Tensor) -> Tensor:
    """Power ``(b, frequency, frame)``, mean over sources and channels."""
    return torch.view_as_real(spectrum).square().sum(-1).mean(1)


def _level(power: Tensor) -> Tensor:
    return power.mean((1, 2))


def _bands(power: Tensor) -> list[Tensor]:
    """Power ``(b,)`` of each band."""
    ends = [round(edge * (power.shape[1] - 1)) for edge in _EDGES]
    ends[-1] += 1
    return [_level(power[:, low:high]) for low, high in pairwise(ends)]


def _db(power: Tensor, of: Tensor | float) -> Tensor:
    """Ratio of powers in dB, both at least the floor: next to a peak of 1 what is below counts as silence."""
    below = of.clamp_min(_FLOOR) if isinstance(of, Tensor) else of
    return 10 * (power.clamp_min(_FLOOR) / below).log10()


def _texture(power: Tensor) -> list[Tensor]:
    """Flatness, sparsity, unsteadiness and how far the quiet frames lie below the loud ones, each in dB."""
    decibels = _db(power, 1.0)
    mean = power.mean(2)
    low, middle, high = torch.quantile(_db(power.mean(1), 1.0), power.new_tensor([0.1, 0.5, 0.9]), dim=1)
    return [
        _db(mean, 1.0).mean(1) - _db(mean.mean(1), 1.0),
        decibels.mean((1, 2)) - _db(power.mean(1), 1.0).mean(1),
        decibels.var(2, correction=0).mean(1).sqrt(),
        high - low,
        high - middle,
    ]


def _likeness(first: Tensor, second: Tensor) -> Tensor:
    """Correlation ``(b,)`` of ``(b, n)``; 0 where one is constant."""
    first, second = (x - x.mean(1, keepdim=True) for x in (first, second))
    return F.cosine_similarity(first, second, dim=1)


def _pauses(mixture: Tensor, estimate: Tensor) -> list[Tensor]:
    """In the quietest quarter of the estimate's frames: the mixture, and what the estimate leaves of it."""
    frames = estimate.mean(1).topk(max(1, estimate.shape[2] // 4), dim=1, largest=False).indices
    there = mixture.mean(1).gather(1, frames).mean(1)
    return [_db(there, _level(mixture)), _db(estimate.mean(1).gather(1, frames).mean(1), there)]


def _mask(mixture: Tensor, estimate: Tensor) -> list[Tensor]:
    """The gain of every cell, its mean, and how many cells, or how much of the level, are half way."""
    gain = (estimate / mixture.clamp_min(_FLOOR)).clamp_max(2)
    undecided = ((gain > 0.1) & (gain < 0.7)).to(gain.dtype)
    level = (undecided * mixture).sum((1, 2)) / mixture.sum((1, 2)).clamp_min(_FLOOR)
    return [gain.mean((1, 2)), undecided.mean((1, 2)), level]


def trace_features(trace: Trace) -> Tensor:
    """Features ``(b, n)`` of the items of a trace: while an estimate is kept they stay the same."""
    share = trace.ratios.new_zeros(len(trace.ratios))
    last_gain = torch.zeros_like(share)
    for chosen, gain in zip(trace.chosen, trace.history.diff(dim=0), strict=True):
        kept = chosen.isnan()
        share, last_gain = share.where(kept, chosen), last_gain.where(kept, gain)
    return features(
        trace.mixture,
        trace.estimate,
        moves=(~trace.chosen.isnan()).sum(0),
        last_share=share,
        last_gain=last_gain,
        gain_so_far=trace.history[-1] - trace.history[0],
    )


class ShareModel(nn.Module):
    """Several networks with one hidden layer that vote for shares; all weights 0 until it is fitted.

    Args:
        shares: Mixture shares, one for each output, each in [0, 1).
        hidden: Units of a hidden layer.
        members: Networks.
    """

    shares: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, shares: Sequence[float] = SHARES, hidden: int = 16, members: int = 4) -> None:
        super().__init__()
        if not shares or not all(0 <= share < 1 for share in shares):
            raise ValueError(f"shares={list(shares)}: give at least one mixture share, each in [0, 1)")
        at_least_one("hidden", hidden)
        at_least_one("members", members)
        inputs, outputs = len(FEATURES), len(shares)
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.inner = nn.Parameter(torch.zeros(members, inputs, hidden))
        self.inner_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.outer = nn.Parameter(torch.zeros(members, hidden, outputs))
        self.outer_bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def logits(self, inputs: Tensor, dropout: float = 0.0, generator: Generator | None = None) -> Tensor:
        """Log-probabilities ``(members, b, shares)`` of features ``(b, inputs)``; dropout is for fitting."""
        # what lies far outside of the training data must not decide alone
        known = ((inputs - self.mean) / self.scale).clamp(-4, 4)
        units = torch.tanh(known @ self.inner + self.inner_bias)
        if dropout:
            units = units * (torch.rand(units.shape, generator=generator) >= dropout) / (1 - dropout)
        return (units @ self.outer + self.outer_bias).log_softmax(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """How much each share ``(b, shares)`` is to be preferred, in [0, 1], for features ``(b, inputs)``."""
        return self.logits(inputs).exp().mean(0)

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path, metadata={"features": " ".join(FEATURES)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, ready to propose.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such file, or of a version with other features.
        """
        try:
            with safe_open(path, framework="pt") as file:
                names = (file.metadata() or {}).get("features", "")
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"path='{path}' is no file of ShareModel.save: {error}") from error
        if names != " ".join(FEATURES):
            raise ValueError(f"path='{path}' holds no share model with the features of today: fit it again")
        members, _, hidden = weights["inner"].shape
        model = cls(weights["shares"].tolist(), hidden=hidden, members=members)
        model.load_state_dict(weights)
        return model


class LearnedSearch:
    """The shares that a model prefers, the best ones first, a few a step.

    A share that was tried since the estimate last changed cannot win now: as long as the estimate is kept a
    step goes on down the list, and an item whose list has ended is finished, exactly.

    Args:
        model: Fitted beforehand, for the separator and measure at hand.
        candidates: Shares of a step, at least 1.
    """

    steps: int | None = None
    selects = True
    wants_slopes = False

    def __init__(self, model: ShareModel, candidates: int = 1) -> None:
        at_least_one("candidates", candidates)
        self.model = model
        self.candidates = candidates

    def propose(self, trace: Trace) -> Tensor:
        """One round: the next shares of the list."""
        items, tried = trace.ratios.shape
        if tried:
            return trace.ratios.new_empty(items, 0)
        with torch.no_grad():
            preference = self.model(trace_features(trace).cpu())
        order = preference.argsort(dim=1, descending=True, stable=True)
        ranked = torch.cat((self.model.shares[order], torch.full((items, self.candidates), torch.nan)), dim=1)
        last = ranked.shape[1] - 1
        columns = (self._tried(trace.chosen).cpu()[:, None] + torch.arange(self.candidates)).clamp_max(last)
        return ranked.gather(1, columns).to(trace.ratios)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items of which every share has lost against the estimate they have."""
        return kept & (self._tried(trace.chosen) + self.candidates >= len(self.model.shares))

    def _tried(self, chosen: Tensor) -> Tensor:
        """Shares ``(b,)`` tried since the estimate last changed, of shares chosen ``(steps, b)``."""
        return self.candidates * chosen.isnan().flip(0).long().cumprod(0).sum(0)


class Recording:
    """Tries all shares in every step, and notes features and what each share gains.

    Attributes:
        features: ``(b, n)`` of every step so far.
        gains: ``(b, shares)`` of every step so far, over the previous estimate; NaN where not eligible.

    Args:
        shares: What is tried, as a model's shares.
    """

    steps: int | None = None
    selects = True
    wants_slopes = False

    def __init__(self, shares: Sequence[float] = SHARES) -> None:
        self.shares = list(shares)
        self.features: list[Tensor] = []
        self.gains: list[Tensor] = []

    def propose(self, trace: Trace) -> Tensor:
        """One round of all shares; when asked for another one, notes what the round has shown."""
        items, tried = trace.ratios.shape
        if tried:
            self.features.append(trace_features(trace).cpu())
            self.gains.append((trace.scores - trace.previous[:, None]).cpu())
        shares = [] if tried else self.shares
        return trace.ratios.new_tensor(shares).expand(items, len(shares))

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items whose estimate was kept: the next step would try the same shares."""
        return kept


def fit_share_model(
    inputs: Tensor,
    gains: Tensor,
    shares: Sequence[float] = SHARES,
    *,
    hidden: int = 16,
    members: int = 4,
    epochs: int = 200,
    seed: int = 0,
) -> ShareModel:
    """Fit a model to choose the share that gains most.

    It maximises the mean over states of ``sum_k p_k max(gain_k, 0)``, what a step gains whose candidate is
    drawn with the model's probabilities, plus 0.02 of their entropy; gains in units of their deviation.

    Args:
        inputs: ``(n, inputs)`` features of states.
        gains: ``(n, shares)`` what each share gains there; NaN counts as nothing.
        shares: The mixture shares.
        hidden: Units of a hidden layer.
        members: Networks that vote.
        epochs: Passes over all states.
        seed: Of weights and dropout.

    Raises:
        ValueError: If the shapes do not fit, or no share gains anything anywhere.
    """
    if inputs.shape != (len(gains), len(FEATURES)) or gains.shape[1:] != (len(shares),):
        raise ValueError(
            f"inputs {tuple(inputs.shape)} and gains {tuple(gains.shape)}: give (n, {len(FEATURES)}) and"
            f" (n, {len(shares)})"
        )
    won = gains.nan_to_num(nan=0.0).clamp_min(0)
    unit = won.std()
    if not unit > 0:
        raise ValueError(
            f"gains: none of the {len(gains)} states has any to choose between, record more items"
        )
    model = ShareModel(shares, hidden, members)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.mean.copy_(inputs.mean(0))
        # what hardly differs among the states is rounding, and must not be blown up
        smallest = 1e-3 * model.mean.abs() + 1e-6
        model.scale.copy_(torch.maximum(inputs.std(0, correction=0), smallest))
        for weight in (model.inner, model.outer):
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3)
    for _ in range(epochs):
        logits = model.logits(inputs, dropout=0.5, generator=generator)
        # summed over the members, so that none learns slower for their number
        value = (logits.exp() * (won / unit - _ENTROPY * logits)).sum((0, 2)).mean()
        optimiser.zero_grad()
        torch.autograd.backward(-value)
        optimiser.step()
    return model
