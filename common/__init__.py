"""Helpers below every other folder: names, optional packages, errors, URIs, spectra."""
