"""Names of sound classes, kept separate so that importing them is cheap."""

from __future__ import annotations

_NAMES = """
    Acoustic_guitar Applause Bark Bass_drum Burping_or_eructation Bus Cello Chime Clarinet
    Computer_keyboard Cough Cowbell Double_bass Drawer_open_or_close Electric_piano Fart
    Finger_snapping Fireworks Flute Glockenspiel Gong Gunshot_or_gunfire Harmonica Hi-hat
    Keys_jangling Knock Laughter Meow Microwave_oven Oboe Saxophone Scissors Shatter Snare_drum
    Squeak Tambourine Tearing Telephone Trumpet Violin_or_fiddle Writing
"""
FSD_CLASSES = tuple(_NAMES.split())
"""The 41 classes of FSDKaggle2018, sorted."""
