"""Published results of "Progressive inference for music demixing", for comparison."""

from __future__ import annotations

BETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

FIXED_SCHEDULE: dict[str, tuple[float, ...]] = {
    "vocals": (9.956, 9.986, 9.997, 9.988, 9.950, 9.876, 9.761, 9.605, 9.416, 9.209),
    "drums": (12.366, 12.365, 12.344, 12.301, 12.226, 12.109, 11.936, 11.677, 11.338, 10.942),
    "bass": (11.146, 11.260, 11.342, 11.389, 11.399, 11.363, 11.268, 11.107, 10.871, 10.569),
    "other": (6.667, 6.695, 6.704, 6.687, 6.638, 6.547, 6.395, 6.165, 5.833, 5.470),
}
"""Target SI-SDR in dB at each of `BETAS`: Hybrid Demucs, 30 s of each of the 50 songs of MUSDB18-HQ.

Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025.
"""

ORACLE_PREDICTOR: dict[str, tuple[float, ...]] = {
    "vocals": (9.956, 10.152, 10.390, 10.680, 11.042, 11.510, 12.144, 13.066, 14.565, 17.641),
}
"""Target SI-SDR in dB of remixes of the true sources by its code (form ``published_code``)."""
