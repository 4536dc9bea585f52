"""(detectors, image, recipe) become files."""
