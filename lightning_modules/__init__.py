"""Training of separators, bridges and diffusion priors."""
