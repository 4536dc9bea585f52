"""What was detected: boxes, classes, which queries are meant, which are the same object."""
