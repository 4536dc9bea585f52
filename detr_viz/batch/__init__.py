"""Many images: workers, a journal, resuming; on one machine or a Ray cluster."""
