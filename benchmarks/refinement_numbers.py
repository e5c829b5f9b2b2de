"""Show that refinement still gives the numbers that it gave before a change of its code.

    python benchmarks/refinement_numbers.py                 # compare with benchmarks/refinement_numbers.json
    python benchmarks/refinement_numbers.py --write         # replace the numbers

The stored numbers were made at commit bee793c, by the loop that the present one replaced: every search, three
kinds of guides and all that changes a separator, on three synthesised voices in white noise.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from shared import command_line, print_table
from torch import Tensor

import encore
from encore import inference
from encore.inference import GreedySearch, GridSearch, Refined, refine, refine_fixed
from encore.metrics import Quality, get_metric, guarded, joint

NUMBERS = Path(__file__).with_suffix(".json")
RATE = 16000
WINDOW = torch.hann_window(512)


def voices_in_noise() -> tuple[Tensor, Tensor]:
    """Return references ``(3, 2, 1, time)``, harmonics with syllables and white noise, and their mixtures."""
    time = torch.arange(2 * RATE) / RATE
    voices = []
    for k in range(3):
        tone = sum(torch.sin(2 * torch.pi * (100 + 40 * k) * h * time + h) / h for h in range(1, 16))
        voices.append(0.05 * tone * (0.5 + 0.5 * torch.sin(2 * torch.pi * (2 + k) * time)).clamp_min(0))
    clean = torch.stack(voices)[:, None]
    noise = 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([clean, noise], 1), clean + noise


def soft_mask(mixture: Tensor) -> Tensor:
    """Separate ``(n, 1, t)`` by a mask on the spectrum's power; the second source is damped."""
    spectrum = torch.stft(mixture[:, 0], 512, 128, window=WINDOW, return_complex=True)
    power = spectrum.abs().square()
    mask = power / (power + 0.05 * power.mean((1, 2), keepdim=True))
    voice = torch.istft(spectrum * mask, 512, 128, window=WINDOW, length=mixture.shape[-1])[:, None]
    return torch.stack([voice, 0.9 * (mixture - voice)], 1)


def results() -> dict[str, Refined]:
    """Run every case."""
    references, mixture = voices_in_noise()
    denoiser, mask = (
        inference.batched(each, 4) for each in (encore.load_separator("shipped:speech"), soft_mask)
    )
    oracle, dnsmos = (get_metric(name, sample_rate=RATE) for name in ("si_sdr", "dnsmos_ovrl"))
    one, both = (oracle.bind(references=own) for own in (references[:, :1], references))
    bare = {"include_estimate": True}
    searches = {
        "grid": GridSearch(10, **bare, steps=4),
        "annealed": inference.AnnealedGridSearch(5, steps=4),
        "greedy": GreedySearch(steps=12),
        "local": inference.LocalSearch(steps=8),
        "coarse_to_fine": inference.CoarseToFine(steps=3),
        "golden": inference.GoldenSection(steps=3),
        "brent": inference.BrentSearch(steps=4),
        "list": inference.FixedListSearch(ratios=[0.3, 0.5, 0.1, 0.7]),
        "capped": inference.MaxEvaluations(GridSearch(10, steps=4), 15),
        "stopped": inference.EarlyStopping(GreedySearch(steps=12), 0.01),
    }
    found: dict[str, Refined] = {}
    for name, search in searches.items():
        found[f"denoiser, si_sdr, {name}"] = refine(denoiser, mixture, one, search)
        found[f"mask, si_sdr, {name}"] = refine(mask, mixture, both, search)
    signals = {"mixture": mixture, "references": references[:, :1]}
    guides: dict[str, tuple[Quality, inference.Search]] = {
        "dnsmos_ovrl, greedy": (dnsmos, GreedySearch(steps=6)),
        "dnsmos_ovrl, grid": (dnsmos, GridSearch(4, **bare, steps=2)),
        "joint": (joint([oracle, dnsmos]).bind(**signals), GreedySearch(steps=3)),
        "guarded": (guarded(dnsmos, [oracle]).bind(**signals), GreedySearch(steps=3)),
    }
    for name, guide in guides.items():
        found[f"denoiser, {name}"] = refine(denoiser, mixture, *guide)
    found["mask, si_sdr, slopes"] = refine(mask, mixture, both, inference.GradientLineSearch(steps=3))
    grid = GridSearch(10, **bare, steps=4)
    found["mask, si_sdr, state"] = refine(soft_mask, mixture, both, grid, path=inference.state)

    def swapped(mixture: Tensor) -> Tensor:
        return soft_mask(mixture).flip(1) if len(mixture) % 2 else soft_mask(mixture)

    wrapped = {
        "consistency": inference.mixture_consistent(soft_mask, mixture, "energy"),
        "wiener": inference.wiener_filtered(soft_mask, inference.Wiener(window=1024)),
        "speakers": inference.aligned(swapped, mixture, [[0, 1]], references),
    }
    for name, separate in wrapped.items():
        found[f"mask, si_sdr, {name}"] = refine(separate, mixture, both, GridSearch(4, steps=3))
    always = GridSearch(4, steps=3, keep_best=False)
    found["mask, si_sdr, previous not kept"] = refine(soft_mask, mixture, both, always)
    found["mask, schedule"] = refine_fixed(soft_mask, mixture, inference.linear_schedule(5))
    ratios = inference.linear_state_schedule(5)
    found["mask, schedule, state"] = refine_fixed(soft_mask, mixture, ratios, path=inference.state)
    for name in ("disjointness", "fixed_point", "remix_agreement"):
        blind = get_metric(name, sample_rate=RATE)
        found[f"mask, {name}"] = refine(soft_mask, mixture, blind, GridSearch(4, steps=2))
    return found


def numbers(refined: Refined) -> dict[str, list[Any]]:
    """Return what is compared: scores, ratios, calls, energies and every 4001st sample."""
    found = {name: getattr(refined, name) for name in ("scores", "ratios", "evaluations")}
    estimates = refined.estimates.double()
    found |= {"estimates": estimates[..., ::4001].flatten(), "energy": estimates.square().sum((1, 2, 3))}
    return {name: own.tolist() for name, own in found.items()}


def difference(now: Any, before: Any) -> float:
    """Return the largest difference of two nested lists, relative above 1; infinite where shapes differ."""
    a, b = torch.tensor(now, dtype=torch.float64), torch.tensor(before, dtype=torch.float64)
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return math.inf
    return float(((a - b).nan_to_num() / b.abs().nan_to_num().clamp_min(1)).abs().max()) if a.numel() else 0.0


def main() -> int:
    """Compare, or write; the exit status is 1 if a difference exceeds 1e-6, or 1e-4 of a score."""
    parser = command_line(__doc__)
    parser.add_argument("--write", action="store_true", help="replace the stored numbers")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    found = {name: numbers(refined) for name, refined in results().items()}
    if write:
        NUMBERS.write_text(json.dumps(found))
        return 0
    stored, rows = json.loads(NUMBERS.read_text()), []
    for name, now in found.items():
        off = {key: difference(value, stored[name][key]) for key, value in now.items()}
        wrong = max(off["estimates"], off["ratios"], off["evaluations"]) > 1e-6 or off["scores"] > 1e-4
        rows.append({"case": name} | {key: f"{value:.1e}" for key, value in off.items()})
        rows[-1] |= {"result": "differs" if wrong else "same"}
    print_table(rows)
    return int(found.keys() != stored.keys() or any(row["result"] != "same" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
