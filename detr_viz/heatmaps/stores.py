"""How maps are stored in a file. Imports nothing, for --help."""

STORES = ("float32", "float16")
