"""Whether head got worse than base, with a stated error rate."""
