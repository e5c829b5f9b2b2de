"""Build what separates the files, and find every mistake that can be known before a file is touched."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from encore.cli.file_separation import FileSeparator
from encore.cli.guides import build_guide
from encore.cli.inputs import Job, plan_jobs
from encore.cli.memory import disable_malloc_trim
from encore.cli.method import Method
from encore.cli.method_options import load_method
from encore.cli.output_names import OutputNames
from encore.cli.overrides import UserError
from encore.inference.prior_separation import PriorSeparator
from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.types import LoadedSeparator
from encore.models.wrappers import SelectSources


class Messages:
    """Print lines on standard error beside a progress bar, and collect the faults among them."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, path: Path | None, error: BaseException | str) -> None:
        """Print in one line why a file, or what the message itself names, failed."""
        line = describe_error(error) if isinstance(error, BaseException) else error
        if path is not None and not line.startswith(f"{path}:"):
            line = f"{path}: {line}"
        self.faults.append(line)
        self._write(f"error: {line}")

    def note(self, line: str) -> None:
        """Print what the user should know."""
        self._write(f"note: {line}")

    def say(self, text: str) -> None:
        """Print results on standard output."""
        try:
            print(_printable(text), flush=True)
        except BrokenPipeError:
            # the reader, such as head, has seen enough; the files are what matters
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115

    def _write(self, line: str) -> None:
        tqdm.write(_printable(line), file=sys.stderr)


def _printable(text: str) -> str:
    """Return text without the surrogates of a file name's undecodable bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def describe_error(error: BaseException) -> str:
    """Return an error in one line, with a fix where it is known."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}: check the path, its permissions and the disk"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "too long for the memory: cut it into parts, or --set method.max_batch=1"
    return " ".join((str(error).strip() or type(error).__name__).split())


def choose_device(name: str) -> torch.device:
    """Return the device that a user names, or a GPU if there is one.

    Raises:
        UserError: If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        raise UserError(f"--device {name}: not available here ({gpus} GPUs); use --device cpu") from error
    return device


def build(options: argparse.Namespace) -> FileSeparator:
    """Load the separator, the method and its guide, and check them against each other.

    Raises:
        ValueError: One line: a wrong option, separator, method or guide.
        OSError: If the checkpoint cannot be read.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"-o {options.out}: is a file; name a folder")
    if options.reference is not None and not options.reference.exists():
        raise UserError(f"--reference {options.reference}: there is no such folder")
    shortcuts = {"segment_seconds": options.segment, "shifts": options.shifts}
    method = load_method(
        options.method,
        steps=options.steps,
        candidates=options.candidates,
        guide=options.guide,
        overrides=[
            *(f"method.{name}={value}" for name, value in shortcuts.items() if value is not None),
            *options.overrides,
        ],
    )
    disable_malloc_trim()
    device = choose_device(options.device)
    whole, separator = _separator(options, method, device)
    priors = whole if isinstance(whole, PriorSeparator) else None
    if priors is not None and method.segment_seconds is None:
        method = replace(method, segment_seconds=priors.segment_seconds)
    networks: list[Any] = [separator] if priors is None else list(priors.models)
    for network in networks:
        accelerate(network, precision=options.precision, compiled=options.compile)
    if method.guided:
        guide = build_guide(method.recipe["guide"], separator.sample_rate, separator=options.separator)
        method = replace(method, guide=guide)
    if method.kind == "oracle" and options.reference is None:
        raise UserError(
            f"--guide {method.guide_name}: is an oracle; give --reference FOLDER with the clean files, or a "
            "blind guide such as dnsmos_ovrl"
        )
    return FileSeparator(
        separator=separator,
        method=method,
        device=device,
        names=OutputNames(
            sources=separator.sources,
            residual=options.residual,
            template=options.filename,
            container=options.container,
        ),
        references=options.reference,
        subtype=options.subtype,
        clip=options.clip,
        seed=options.seed,
        scored=not options.no_scores,
        priors=priors,
    )


def _separator(
    options: argparse.Namespace, method: Method, device: torch.device
) -> tuple[LoadedSeparator, LoadedSeparator]:
    """Return the separator that is named, or one made of priors, and the same with the chosen sources.

    Raises:
        UserError: If an option does not fit the method or the separator.
    """
    separator: LoadedSeparator
    if method.posterior is None:
        if options.priors:
            raise UserError(
                f"--priors {' '.join(options.priors)}: are for --method diffusion_prior; give it too"
            )
        separator = load_separator(options.separator, device=device)
    elif options.separator is not None:
        raise UserError(
            f"--separator {options.separator}: --method diffusion_prior has priors instead; to start from an "
            "estimate of it, --set method.posterior.estimate=..."
        )
    else:
        separator = method.posterior(options.priors or [], device=device, seed=options.seed)
    if options.sources is None:
        return separator, separator
    if method.consistency is not None:
        raise UserError(
            f"--sources {options.sources}: consistency={method.consistency} moves all sources to sum to the "
            "mixture; leave one of them out"
        )
    try:
        return separator, SelectSources(separator, [name.strip() for name in options.sources.split(",")])
    except ValueError as error:
        raise UserError(f"--{str(error).replace('=', ' ', 1)}") from error


def check_inputs(
    options: argparse.Namespace, files: FileSeparator, messages: Messages
) -> tuple[list[Job], int]:
    """Find the inputs and read their headers; every one that cannot be done is reported at once.

    Returns:
        The jobs to do, and how many were left out because their outputs exist.
    """
    found, faults = plan_jobs(options.inputs, options.out, files.names)
    for fault in faults:
        messages.fault(None, fault)
    if options.reference is not None and options.reference.is_file() and len(found) > 1:
        messages.fault(options.reference, "one reference file for several inputs: give a folder")
        return [], 0
    left = [job for job in found if not (options.skip_existing and job.done)]
    jobs = []
    for job in left:
        try:
            files.check(job)
            jobs.append(job)
        except (ValueError, OSError) as error:
            messages.fault(job.path, error)
    return jobs, len(found) - len(left)
