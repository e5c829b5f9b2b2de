"""``infer.py --method diffusion_prior --priors ...``: a separator made of trained source priors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from commands.overrides import UserError
from inference.posterior import Solver, Start
from inference.prior_separation import Choice, PriorSeparator
from inference.source_priors import SourcePrior
from models import load_prior, load_separator
from models.denoisers.diffusion_prior import DiffusionPrior
from models.pretrained import SHIPPED
from models.processes.diffusion import Diffusion, DiscreteDiffusion, NoiseLevels, Spacing


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorSettings:
    """How sources are sampled from their priors: a node of ``configs/method/diffusion_prior.yaml``.

    Args:
        solver: One of :mod:`inference.posterior` and its siblings.
        start: Where the chain starts.
        chain: A diffusion whose levels are run, for priors that were trained at any level; None for those of
            the priors that were trained at some only, or the published ones, which guidance is made for.
        levels: How many levels of the chain are run; None for all.
        spacing: Which ones, see :meth:`models.processes.diffusion.NoiseLevels.places`.
        level_db: RMS of a source in dB of full scale, to which a mixture is brought; None leaves it.
        draws: How many times each segment is separated; the best is kept, or the mean.
        choose: Which, see :class:`inference.prior_separation.PriorSeparator`.
        checkpointed: Whether priors compute activations again for a gradient, which takes a fraction of the
            memory, instead of keeping them.
        class_guidance: Strength of guidance by class, for priors that are given one.
        estimate: A separator of the same sources, whose estimate the chain starts from; for
            ``start.kind=estimate``.
    """

    solver: Solver
    start: Start
    chain: Diffusion | None = None
    levels: int | None = None
    spacing: Spacing = "even"
    level_db: float | None = -22.5
    draws: int = 1
    choose: Choice = "both"
    checkpointed: bool = False
    class_guidance: float = 0.0
    estimate: str | None = None


def prior_separator(
    names: Sequence[str], settings: PosteriorSettings, *, device: torch.device, seed: int
) -> PriorSeparator:
    """Load priors and make a separator of them.

    Args:
        names: Of each source ``PRIOR`` or ``PRIOR:CLASS``: a checkpoint, or a shipped prior by its name.
        settings: How to sample.
        device: Where to.
        seed: Of all noise.

    Raises:
        UserError: If a prior or class does not exist, or priors do not fit each other.
    """
    if len(names) < 2:
        raise UserError(f"--priors {' '.join(names)}: give one for each source of the mixture, two or more")
    loaded: dict[Path, DiffusionPrior] = {}
    priors, sources = [], []
    for name in names:
        path, label = _split(name)
        if path not in loaded:
            try:
                loaded[path] = load_prior(path, device=device)
                if settings.checkpointed:
                    loaded[path].save_memory()
            except (ValueError, OSError) as error:
                raise UserError(f"--priors {name}: {error}") from error
        model = loaded[path]
        number = None if label is None else _class_number(name, label, model)
        guidance = 0.0 if number is None else settings.class_guidance
        priors.append(SourcePrior(model=model, label=number, class_guidance=guidance))
        sources.append(label.lower() if label is not None else model.source)
    chain = _fitting_chain(loaded, settings.chain)
    try:
        return PriorSeparator(
            priors,
            _numbered(sources),
            solver=settings.solver,
            levels=_levels(chain, settings),
            sample_rate=loaded[next(iter(loaded))].sample_rate,
            start=settings.start,
            level_db=settings.level_db,
            draws=settings.draws,
            choose=settings.choose,
            seed=seed,
            first=None if settings.estimate is None else load_separator(settings.estimate, device=device),
            progress=_bar,
        )
    except (ValueError, OSError) as error:
        raise UserError(f"--method diffusion_prior: {error}") from error


def shipped_priors() -> dict[str, Path]:
    """Priors that come with the package, by name."""
    return {file.stem.removeprefix("prior_"): file for file in SHIPPED.parent.glob("prior_*.safetensors")}


def _fitting_chain(loaded: Mapping[Path, DiffusionPrior], chosen: Diffusion | None) -> Diffusion:
    """The chosen chain, or that of the first prior that has one of its own, or the published one.

    Raises:
        UserError: If priors differ in rate, or one does not know the chain.
    """
    models = [*loaded.values()]
    owned = [model.diffusion for model in models if isinstance(model.diffusion, DiscreteDiffusion)]
    chain = chosen or next(iter(owned), DiscreteDiffusion())
    sample_rate, wanted = models[0].sample_rate, chain.levels().signal
    for path, model in loaded.items():
        if model.sample_rate != sample_rate:
            raise UserError(
                f"--priors: '{path}' has {model.sample_rate} Hz, the first one {sample_rate} Hz: "
                "all must have the same"
            )
        own = model.diffusion.levels().signal
        if model.diffusion in owned and (own.shape != wanted.shape or not torch.allclose(own, wanted)):
            raise UserError(
                f"--priors: '{path}' knows {len(own)} levels of its own, not the {len(wanted)} of "
                f"{'posterior.chain' if chosen else 'the others'}: all must have the same"
            )
    return chain


def _levels(chain: Diffusion, settings: PosteriorSettings) -> NoiseLevels:
    if settings.levels is None or settings.spacing == "even":
        return chain.levels(settings.levels)
    return chain.levels().respaced(settings.levels, settings.spacing)


def _split(name: str) -> tuple[Path, str | None]:
    """A prior's file and its class, if there is one."""
    shipped = shipped_priors()
    for whole, label in ((name, None), name.rpartition(":")[::2]):
        if whole in shipped:
            return shipped[whole], label
        if whole and Path(whole).is_file():
            return Path(whole), label
    known = f"one of {', '.join(sorted(shipped))}, or " if shipped else ""
    raise UserError(f"--priors {name}: there is no such file or prior; give {known}the path of a checkpoint")


def _class_number(name: str, label: str, model: DiffusionPrior) -> int:
    if label not in model.classes:
        known = ", ".join(model.classes) or "none"
        raise UserError(f"--priors {name}: the prior has no class {label!r}; it has {known}")
    return model.classes.index(label)


def _numbered(sources: Sequence[str]) -> list[str]:
    """Names that occur more than once get a number.

    >>> _numbered(["speech", "sound", "speech"])
    ['speech1', 'sound', 'speech2']
    """
    counts, seen = Counter(sources), Counter[str]()
    names = []
    for source in sources:
        seen[source] += 1
        names.append(f"{source}{seen[source]}" if counts[source] > 1 else source)
    return names


@contextmanager
def _bar(levels: int) -> Iterator[Callable[[], None]]:
    """A bar of the levels of one segment, where there is a terminal."""
    with tqdm(total=levels, unit="level", leave=False, disable=None) as bar:

        def advance() -> None:
            bar.update()

        yield advance
