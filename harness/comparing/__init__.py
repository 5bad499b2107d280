"""Runs against runs, judged by nobody: two side by side, one metric over time."""
