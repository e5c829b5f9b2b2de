"""Songs, sound events and corpora of them made from a seed; ``python -m encore.synthetic_corpora --help``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encore.data.corpus_writer import Corpus

FloatArray = NDArray[np.floating]
"""Audio ``(time,)``, double precision, full scale 1."""
Rng = np.random.Generator
"""Source of all that a function draws."""


class SyntheticCorpus(Corpus):
    """A corpus of sounds made from a seed."""

    command = "encore.synthetic_corpora"
    content = "No recordings: sounds made from a seed"
