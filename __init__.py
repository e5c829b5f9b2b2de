"""Encore: one-step audio source separators, and training-free multi-step inference with them."""
