"""Finding and reading images: files, folders, lists, COCO files; pixels as numpy arrays."""
