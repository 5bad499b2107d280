"""From a suite's YAML to the points that can run here."""
