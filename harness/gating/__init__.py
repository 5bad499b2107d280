"""Whether a new revision got worse than the one before it, with a stated error rate."""
