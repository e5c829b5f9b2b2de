"""The maths of Gaussian processes between clean sources and mixtures or noise."""
