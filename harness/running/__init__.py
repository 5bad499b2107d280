"""One call of `harness run`, seen from its driver."""
