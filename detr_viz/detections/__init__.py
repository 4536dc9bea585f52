"""Detections: boxes, classes, the choice of queries, and queries that show the same object."""
