"""Answers to the questions of a run's suites: who costs least along an axis, and where that turns."""
