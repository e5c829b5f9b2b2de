"""Write a synthetic corpus: ``python -m encore.synthetic_corpora CORPUS OUT``; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from encore.data.corpus_writer import Corpus, run
from encore.synthetic_corpora.sound_corpora import FsdKaggle2018, Musdb18Hq

CORPORA: tuple[type[Corpus], ...] = (Musdb18Hq, FsdKaggle2018)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `encore.data.corpus_writer.run`."""
    return run(CORPORA, arguments, "Write a synthetic corpus.")


if __name__ == "__main__":
    sys.exit(main())
