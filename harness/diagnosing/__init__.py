"""What can be measured here, how well, and what could cost a run its results."""
