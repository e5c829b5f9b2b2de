"""Open separators once, so that all they need lies in the caches: for machines without a network.

    python -m encore.cli.prefetch demucs:htdemucs asteroid:JorisCos/ConvTasNet_Libri2Mix_sepnoisy_16k
    python -m encore.cli.prefetch --measures

Run it where there is a network, such as on a login node, with the cache folders that the jobs will see.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from encore.cli.infer_setup import one_line
from encore.metrics import DOOR_NAMES
from encore.metrics.network_measures import fetch_weights
from encore.models import load_separator


def main(arguments: Sequence[str] | None = None) -> int:
    """Open what is named, and say where it landed.

    Returns:
        0 if everything could be opened, 1 if something could not; one line each on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m encore.cli.prefetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("separators", nargs="*", metavar="URI", help="as infer.py --separator takes it")
    parser.add_argument("--measures", action="store_true", help="fetch the weights of every measure")
    options = parser.parse_args(arguments)
    if not options.separators and not options.measures:
        parser.error("give a URI, or --measures")
    # the doors say where each file lies
    doors = logging.getLogger("encore.models.pretrained")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    doors.addHandler(handler)
    doors.setLevel(logging.INFO)
    try:
        faults = sum(not _opened(uri) for uri in options.separators)
        return int(faults + (options.measures and not _measures()) > 0)
    finally:
        doors.removeHandler(handler)


def _opened(uri: str) -> bool:
    try:
        separator = load_separator(uri)
    except (ValueError, OSError) as error:
        print(f"error: {uri}: {one_line(error)}", file=sys.stderr)
        return False
    print(
        f"{uri}: {', '.join(separator.sources)}; {separator.sample_rate} Hz, {separator.channels} channel(s)"
    )
    return True


def _measures() -> bool:
    """Fetch the weights of every measure that has some; those of `METRIC_NAMES` come with their packages."""
    well = True
    for name in DOOR_NAMES:
        try:
            print(f"{name}: {fetch_weights(name)}")
        except (ValueError, OSError) as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            well = False
    return well


if __name__ == "__main__":
    sys.exit(main())
