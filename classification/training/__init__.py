"""Training: one flat loop and the leaf files it is made of."""
