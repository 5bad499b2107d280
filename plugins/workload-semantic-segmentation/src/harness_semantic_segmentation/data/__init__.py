"""Data sets, how images are read and transformed, and how predictions are judged."""
