"""Scenes of simple shapes, and how the demo checkpoints are trained and measured on them."""
