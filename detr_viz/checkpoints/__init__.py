"""A name or a file becomes a loaded detector."""
