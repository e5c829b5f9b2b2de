"""Write a separator as a file that is passed on, and compare the file with the separator.

    python -m encore.models.export outputs/RUN/checkpoints/last.ckpt a.safetensors  weights, configuration
    python -m encore.models.export voice.safetensors voice.pt2                  a torch.export program
    python -m encore.models.export voice.safetensors voice.onnx                 ONNX between the transforms
    python -m encore.models.export voice.safetensors voice.onnx --whole         ONNX from wave to wave
    python -m encore.models.export voice.safetensors voice.pt                   TorchScript (deprecated)

A checkpoint's averaged weights are taken where the run averaged them. Every file is read again and compared
on noise of two lengths and two batch sizes; a file that differs is deleted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

from encore.models.checkpoint import load_checkpoint, read_checkpoint, save_separator
from encore.models.export.files import SUFFIXES, largest_difference, write
from encore.models.loading import load_separator

TOLERANCE = 1e-4
"""Largest difference from the separator that passes, relative to the estimates' peak."""


def main(arguments: list[str] | None = None) -> int:
    """Write, read again and compare; returns the exit status."""
    options = _options(arguments)
    try:
        if options.out.suffix == ".safetensors":
            print(_write_weights(options.separator, options.out))
        else:
            print(_write_graph(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m encore.models.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("separator", help="a checkpoint of ours, or anything that load_separator opens")
    parser.add_argument(
        "out", type=Path, help=f"file to write, ending in .safetensors, {', '.join(SUFFIXES)}"
    )
    parser.add_argument(
        "--whole", action="store_true", help="ONNX of everything, the transforms as convolutions"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="fix the length to this, for networks that are not exported for any length",
    )
    return parser.parse_args(arguments)


def _write_weights(source: str, out: Path) -> str:
    separator = load_checkpoint(source)
    save_separator(out, separator, read_checkpoint(source)[0])
    written = load_checkpoint(out).state_dict()
    for name, tensor in separator.state_dict().items():
        if not tensor.equal(written[name]):
            raise ValueError(f"{out}: {name} differs from the checkpoint's")
    return f"wrote {out}"


def _write_graph(options: argparse.Namespace) -> str:
    separator = load_separator(options.separator)
    assert isinstance(separator, nn.Module)
    out: Path = options.out
    run, extent = write(out, separator, whole=options.whole, seconds=options.seconds)
    try:
        difference = largest_difference(run, separator, extent)
        # not "greater", which NaN never is
        if not difference <= TOLERANCE:
            raise ValueError(
                f"'{out}' differed from the separator by {difference:.1e} of the peak, more than "
                f"{TOLERANCE:g}, and was deleted: use another format"
            )
    except ValueError:
        out.unlink()
        raise
    return f"wrote {out}: {extent.describe()}; largest difference {difference:.1e} of the peak"


if __name__ == "__main__":
    sys.exit(main())
