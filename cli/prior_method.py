"""``infer.py --method diffusion_prior --priors ...``: a separator of trained source priors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from string import ascii_lowercase

import torch
from tqdm import tqdm

from encore.cli.overrides import UserError
from encore.common.names import nearest
from encore.inference.posterior import Solver, Start
from encore.inference.prior_separation import Choice, PriorSeparator
from encore.inference.source_priors import SourcePrior
from encore.models import load_prior, load_separator
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.loading import SHIPPED
from encore.models.processes.diffusion import Diffusion, DiscreteDiffusion, Spacing
from encore.models.types import LoadedSeparator


def prior_separator(
    names: Sequence[str],
    *,
    solver: Solver,
    start: Start,
    chain: Diffusion | None = None,
    levels: int | None = None,
    spacing: Spacing = "even",
    level_db: float | None = -22.5,
    draws: int = 1,
    choose: Choice = "both",
    checkpointing: bool = False,
    class_guidance: float = 0.0,
    estimate: str | None = None,
    device: torch.device,
    seed: int,
) -> PriorSeparator:
    """Load priors and return a separator of them; the options are ``method.posterior`` of ``infer.py``.

    Args:
        names: ``PRIOR`` or ``PRIOR:CLASS`` for each source: a checkpoint, or the name of a shipped prior.
        solver: One of `encore.inference.posterior` and its siblings.
        start: Where the chain starts.
        chain: A diffusion whose levels are run, for priors that were trained at any level; None for those of
            priors that were trained at some only, or the published ones, which guidance is designed for.
        levels: Number of levels of the chain to run; None for all.
        spacing: Which ones, see `encore.models.processes.diffusion.NoiseLevels.indices`.
        level_db: RMS of a source in dB of full scale, to which a mixture is scaled; None leaves it.
        draws: How many times each segment is separated.
        choose: Which draw is kept, see `encore.inference.prior_separation.PriorSeparator`.
        checkpointing: Whether priors recompute activations for a gradient, in a fraction of the memory.
        class_guidance: Strength of guidance by class, for priors with a class.
        estimate: A separator of the same sources in the same order, whose estimate the chain starts from; for
            ``start.kind=estimate``.
        device: To load to.
        seed: Of all noise.

    Raises:
        UserError: If a prior or class does not exist, or priors do not fit each other.
    """
    if len(names) < 2:
        given = f"--priors {names[0]}" if names else "--priors is missing"
        raise UserError(
            f"{given}: give one for each source of the mixture, two or more with spaces between: "
            f"{_known_priors()}"
        )
    loaded: dict[Path, DiffusionPrior] = {}
    priors, wanted = [], []
    for name in names:
        path, label = _split(name)
        if path not in loaded:
            loaded[path] = _load(name, path, device)
            if checkpointing:
                loaded[path].enable_checkpointing()
        priors.append(_source_prior(name, loaded[path], label, class_guidance))
        wanted.append((loaded[path].source if label is None else label.lower(), path))
    sources, sample_rate = _source_names(wanted), loaded[wanted[0][1]].sample_rate
    fitting = _fitting_chain(loaded, chain)
    chosen = fitting.levels(levels)
    if levels is not None and spacing != "even":
        chosen = fitting.levels().respaced(levels, spacing)
    first = None if estimate is None else _first(estimate, sources, sample_rate, device)
    try:
        return PriorSeparator(
            priors,
            sources,
            solver=solver,
            levels=chosen,
            sample_rate=sample_rate,
            start=start,
            level_db=level_db,
            draws=draws,
            choose=choose,
            seed=seed,
            first=first,
            # without a terminal there is no bar
            progress=partial(tqdm, unit="level", leave=False, disable=None),
        )
    except (ValueError, OSError) as error:
        raise UserError(f"--method diffusion_prior: {error}") from error


def _load(name: str, path: Path, device: torch.device) -> DiffusionPrior:
    try:
        return load_prior(path, device=device)
    except (ValueError, OSError) as error:
        raise UserError(f"--priors {name}: {error}") from error


def _source_prior(name: str, model: DiffusionPrior, label: str | None, class_guidance: float) -> SourcePrior:
    """Return the prior of one source, of a class if one is named."""
    if label is None:
        return SourcePrior(model=model, label=None, class_guidance=0.0)
    if label not in model.classes:
        near = " or ".join(nearest(label, model.classes)) or name.rpartition(":")[0]
        raise UserError(f"--priors {name}: the prior has no class {label!r}; use {near}")
    return SourcePrior(model=model, label=model.classes.index(label), class_guidance=class_guidance)


def shipped_priors() -> dict[str, Path]:
    """Return the priors that come with the package, by name."""
    return {file.stem.removeprefix("prior_"): file for file in SHIPPED.glob("prior_*.safetensors")}


def _fitting_chain(loaded: Mapping[Path, DiffusionPrior], chosen: Diffusion | None) -> Diffusion:
    """Return the chosen chain, or that of the first prior with levels of its own, or the published one.

    Raises:
        UserError: If priors differ in rate, or one was not trained at these levels.
    """
    models = [*loaded.values()]
    owned = [model.diffusion for model in models if isinstance(model.diffusion, DiscreteDiffusion)]
    chain = chosen or next(iter(owned), DiscreteDiffusion())
    sample_rate, wanted = models[0].sample_rate, chain.levels().alpha_bar
    for path, model in loaded.items():
        if model.sample_rate != sample_rate:
            raise UserError(
                f"--priors: '{path}' has {model.sample_rate} Hz, the first one {sample_rate} Hz: "
                "all must have the same"
            )
        own = model.diffusion.levels().alpha_bar
        if model.diffusion in owned and (own.shape != wanted.shape or not torch.allclose(own, wanted)):
            raise UserError(
                f"--priors: '{path}' was trained at {len(own)} levels, not the {len(wanted)} of "
                f"{'posterior.chain' if chosen else 'the others'}: all must have the same"
            )
    return chain


def _split(name: str) -> tuple[Path, str | None]:
    """Return a prior's file and its class, if there is one."""
    shipped = shipped_priors()
    for whole, label in ((name, None), name.rpartition(":")[::2]):
        if whole in shipped:
            return shipped[whole], label
        if whole and Path(whole).is_file():
            return Path(whole), label
    raise UserError(f"--priors {name}: there is no such file or prior; give {_known_priors()}")


def _known_priors() -> str:
    return f"one of {', '.join(sorted(shipped_priors()))}, or the path of a checkpoint"


def _source_names(wanted: Sequence[tuple[str, Path]]) -> list[str]:
    """Name sources by their kind or class and the file of their prior.

    Those of one prior differ by a number, so that they may come in any order; those of different priors by a
    letter.

    >>> a, b = Path("a"), Path("b")
    >>> _source_names([("speech", a), ("sound", b), ("speech", a)])
    ['speech1', 'sound', 'speech2']
    >>> _source_names([("speech", a), ("speech", b), ("speech", a)])
    ['speech_a1', 'speech_b', 'speech_a2']
    """
    counts, seen = Counter(wanted), Counter[tuple[str, Path]]()
    files: dict[str, dict[Path, str]] = {}
    for name, file in wanted:
        letters = files.setdefault(name, {})
        letters.setdefault(file, ascii_lowercase[len(letters)])
    names = []
    for name, file in wanted:
        seen[name, file] += 1
        letter = f"_{files[name][file]}" if len(files[name]) > 1 else ""
        number = str(seen[name, file]) if counts[name, file] > 1 else ""
        names.append(f"{name}{letter}{number}")
    return names


def _first(uri: str, sources: Sequence[str], sample_rate: int, device: torch.device) -> LoadedSeparator:
    """Load the separator whose estimate a chain starts from.

    Raises:
        UserError: If it cannot be loaded, has another rate or several channels, or its sources are not those
            of the priors in their order, as far as they have the same names.
    """
    fault = f"method.posterior.estimate={uri}"
    try:
        first = load_separator(uri, device=device)
    except (ValueError, OSError) as error:
        raise UserError(f"{fault}: {error}") from error
    if (first.sample_rate, first.channels) != (sample_rate, 1):
        raise UserError(
            f"{fault}: separates {first.channels} channels at {first.sample_rate} Hz, the priors one at "
            f"{sample_rate} Hz; '{uri}?sample_rate={sample_rate}' resamples"
        )
    known = list(first.sources)
    moved = [name for name in known if name in sources and sources.index(name) != known.index(name)]
    if len(known) != len(sources) or moved:
        raise UserError(
            f"{fault}: separates {', '.join(known)}, the priors {', '.join(sources)}; "
            "give --priors for the same sources in the same order"
        )
    return first
