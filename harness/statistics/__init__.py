"""Statistics of comparisons: exact bounds for pairs and for two samples, change points. Arithmetic only."""
