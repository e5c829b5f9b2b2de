"""Networks conditioned on time or noise level, and the separators and priors made of them."""
