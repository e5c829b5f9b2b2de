"""Write a synthetic corpus: ``python -m encore.synthetic_corpora CORPUS OUT``; see ``--help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from encore.synthetic_corpora.corpus_files import Corpus, write_corpus
from encore.synthetic_corpora.sound_corpora import FsdKaggle2018, Musdb18Hq
from encore.synthetic_corpora.speech import SynthesisError
from encore.synthetic_corpora.speech_corpora import LibriMix, Vctk, VoicebankDemand

CORPORA: tuple[type[Corpus], ...] = (VoicebankDemand, LibriMix, Vctk, Musdb18Hq, FsdKaggle2018)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 with one line on standard error for an invalid value or folder."""
    parser = argparse.ArgumentParser(
        "python -m encore.synthetic_corpora", description="Write a synthetic corpus."
    )
    layouts = parser.add_subparsers(required=True, metavar="CORPUS")
    for corpus in CORPORA:
        layout = layouts.add_parser(corpus.name, help=corpus.source, description=corpus.__doc__)
        layout.set_defaults(corpus=corpus)
        layout.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
        layout.add_argument("--workers", type=int, default=2, help="processes (2)")
        layout.add_argument("--overwrite", action="store_true", help="replace the corpus in OUT")
        for item in fields(corpus)[1:]:
            many, default = isinstance(item.default, tuple), item.default
            kind: dict[str, Any] = {"nargs": "+"} if many else {"type": type(default)}
            choices = " or ".join(map(str, item.metadata["choices"]))
            text = (
                f"{item.metadata['help']}{choices and ': '}{choices} (default {'all' if many else default})"
            )
            layout.add_argument(f"--{item.name.replace('_', '-')}", default=default, help=text, **kind)
    options = vars(parser.parse_args(arguments))
    chosen, workers, overwrite = (options.pop(name) for name in ("corpus", "workers", "overwrite"))
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        write_corpus(chosen(**options), workers=workers, overwrite=overwrite)
    except (ValueError, OSError, SynthesisError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
