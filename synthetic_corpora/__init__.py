"""Speech, noise, songs and whole corpora made from a seed; ``python -m encore.synthetic_corpora --help``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
"""Audio ``(time,)``, double precision, full scale 1."""
Rng = np.random.Generator
"""Source of all that a function draws."""
