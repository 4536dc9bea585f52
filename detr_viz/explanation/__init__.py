"""One image through one detector: what was attended to, and analyses of it."""
