"""Parse the command line of ``infer.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from encore.models.acceleration import PRECISIONS
from encore.models.pretrained.registry import describe_loaders

EXAMPLES = """examples:
  python infer.py noisy.wav -o out                     default separator, multi-step, blind guide
  python infer.py recordings/ more/ 'takes/*.flac' -o out --skip-existing
  python infer.py @list.txt -o out --dry-run           files, separator calls and time, nothing written
  python infer.py songs/ -o out --separator demucs:htdemucs --sources vocals --residual --flac
  python infer.py noisy/ -o out --separator outputs/run/checkpoints/last.ckpt --method one_step
  python infer.py song.wav -o out --separator demucs:htdemucs --method one_step --no-scores
  python infer.py noisy/ -o out --reference clean/ --guide si_sdr          oracle guide, and scores
  python infer.py noisy/ -o out --guide speech_joint   several metrics as one, see configs/quality
  python infer.py noisy.wav -o out --steps 5 --candidates 10 --set method.path=state
  python infer.py noisy.wav -o out --method progressive --set method.search.last=0.5
  python infer.py noisy.wav -o out --separator bridge.ckpt --method bridge --steps 30
  python infer.py scene.wav -o out --method diffusion_prior --priors speech.ckpt sound.ckpt:Flute

INPUT is files, folders (searched through), quoted globs or @list.txt (a path a line). A name that exists is
taken literally. Rate, channels, length, level and format of a file are kept; a
format that cannot be written becomes WAV, with a note.
OUT gets <relative path> for one output, <relative path without suffix>/<source>.<suffix> for several, or what
--filename says; and scores.csv, summary.json and run.json, for python report.py OUT.

exit status: 0 all files done, 1 some or all could not be (one line each on standard error), 2 options that
cannot be understood, 130 interrupted.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        arguments: Without the program's name; the real ones if None.

    Returns:
        The options; ``steps``, ``candidates`` and ``guide`` are None where the method's own hold.
    """
    parser = _Parser(
        prog="infer.py",
        usage="python infer.py INPUT [INPUT ...] -o OUT [options]",
        description="Separate audio files, and refine the estimates in several steps.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="files, folders, quoted globs, @list.txt")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="folder to write; made where needed")
    add("--separator", metavar="URI", help=_SEPARATOR)
    add("--sources", metavar="A,B", help="separate and write these of the separator's sources only")
    add("--list-separators", action=_ListSeparators, help="show the schemes of --separator, and exit")
    add("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="32", help=_PRECISION)
    add("--compile", action="store_true", help="compile the network: slow to start, then maybe faster")
    add("--seed", type=int, default=0, metavar="S", help="seed of shifts and noise (default: 0)")
    add("--skip-existing", action="store_true", help="leave out files that are done; keep their scores")
    add("--dry-run", action="store_true", help="list files, separator calls and time; write nothing")
    add("--reference", type=Path, metavar="FOLDER", help=_REFERENCE)
    add("--no-scores", action="store_true", help="write no scores, which cost time too")
    add = parser.add_argument_group("method").add_argument
    add("--method", choices=METHODS, default="multi_step", help=_METHOD)
    add("--priors", nargs="+", metavar="P[:CLASS]", help=_PRIORS)
    add("--guide", metavar="NAME", help=_GUIDE)
    add("--steps", type=int, metavar="N", help="steps after the first estimate (default: 20 of multi_step)")
    add("--candidates", type=int, metavar="K", help=_CANDIDATES)
    add("--segment", type=float, metavar="S", help=_SEGMENT)
    add("--shifts", type=int, metavar="N", help="mean over N delays, for N times the calls (default: 0)")
    add("--set", dest="overrides", action="append", default=[], metavar="method.KEY=VALUE", help=_SET)
    add = parser.add_argument_group("outputs").add_argument
    add("--residual", action="store_true", help=_RESIDUAL)
    add("--filename", metavar="TEMPLATE", help=_FILENAME)
    add(
        "--format", dest="container", metavar="EXT", help="wav, flac, ogg, mp3 or aiff (default: the input's)"
    )
    add("--flac", dest="container", action="store_const", const="flac", help="--format flac")
    add("--subtype", choices=("FLOAT", "PCM_16", "PCM_24"), help="encoding (default: the input's)")
    for flag, subtype in (("--float32", "FLOAT"), ("--int24", "PCM_24")):
        add(flag, dest="subtype", action="store_const", const=subtype, help=f"--subtype {subtype}")
    add("--clip", choices=("clamp", "rescale", "error"), default="clamp", help=_CLIP)
    # files may stand before and after the options
    return parser.parse_intermixed_args(arguments)


METHODS = ("one_step", "multi_step", "progressive", "bridge", "diffusion_prior")

_SEPARATOR = """a .ckpt or .safetensors file, or another project's separator as scheme:name?option=value
(default: deepfilternet:, full-band speech, which comes with Encore)"""
_PRECISION = "bf16: products in bfloat16, faster on some machines (default: 32)"
_REFERENCE = """clean files under the same relative paths (several sources: a folder for each source); allows
oracle guides and scores everything"""
_METHOD = """one call, guided refinement, a fixed schedule, sampling of a bridge, or sampling of sources from
their priors (default: multi_step)"""
_PRIORS = """of --method diffusion_prior: one for each source, a checkpoint or a shipped prior (speech, sound,
sound:Flute), 8 kHz"""
_GUIDE = "a metric, a file of configs/quality, a path, or python:module:function (default: dnsmos_ovrl)"
_CANDIDATES = "ratios tried in each step, on a grid (default: one, by a greedy search)"
_SEGMENT = "longest piece in seconds that is separated at once (default: 30); see method.refine_per"
_SET = "change any option of the method, such as method.search.first=0.2; may be repeated"
_RESIDUAL = "also write the input less the estimates: no_<source>, or residual beside several"
_FILENAME = "path below OUT, of {folder} {track} {source} {ext}, such as '{track}/{source}.wav'"
_CLIP = """what to do beyond full scale where the encoding cannot hold it: limit the samples, divide the file
by its peak, or refuse the file (default: clamp)"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what swallowed the inputs."""
        if "INPUT" in message and "--priors" in sys.argv:
            message += " (--priors takes all names that follow it: name INPUT before it)"
        super().error(message)


class _ListSeparators(argparse.Action):
    """Print the loaders and end the program, with or without the arguments that a run needs."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        # as --help is printed, which bears a reader that has seen enough
        parser._print_message(f"{describe_loaders()}\n", sys.stdout)
        parser.exit()
