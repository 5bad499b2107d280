"""Measures commands and blocks of code outside of a suite, keeps them as runs, and loads what was kept."""
