"""Training data: caches, latents, and one dataset per kind of record."""
