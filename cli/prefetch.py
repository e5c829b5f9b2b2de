"""Open separators once, so that all they need is in the caches: for machines without a network.

    python -m encore.cli.prefetch demucs:htdemucs asteroid:JorisCos/ConvTasNet_Libri2Mix_sepnoisy_16k
    python -m encore.cli.prefetch --metrics

Run it where there is a network, such as on a login node, with the cache folders of the jobs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from encore.common.errors import one_line
from encore.metrics import EXTERNAL_METRICS
from encore.metrics.networks import fetch_weights
from encore.models import load_separator


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the named separators and metrics, and print where their files are.

    Returns:
        0 if everything could be opened, 1 if something could not; one line each on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m encore.cli.prefetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("separators", nargs="*", metavar="URI", help="as infer.py --separator takes it")
    parser.add_argument("--metrics", action="store_true", help="fetch the weights of every published metric")
    options = parser.parse_args(arguments)
    if not options.separators and not options.metrics:
        parser.error("give a URI, or --metrics")
    # the loaders log the path of each file
    loaders = logging.getLogger("encore.models.pretrained")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    loaders.addHandler(handler)
    loaders.setLevel(logging.INFO)
    failed = False
    try:
        for name in [*options.separators, *(EXTERNAL_METRICS if options.metrics else ())]:
            try:
                print(f"{name}: {_describe(name) if name in options.separators else fetch_weights(name)}")
            except (ValueError, OSError) as error:
                print(f"error: {name}: {one_line(error)}", file=sys.stderr)
                failed = True
    finally:
        loaders.removeHandler(handler)
    return int(failed)


def _describe(uri: str) -> str:
    separator = load_separator(uri)
    return f"{', '.join(separator.sources)}; {separator.sample_rate} Hz, {separator.channels} channel(s)"


if __name__ == "__main__":
    sys.exit(main())
