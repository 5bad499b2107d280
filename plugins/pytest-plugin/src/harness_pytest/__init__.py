"""Energy beside the times of pytest-benchmark, and suites of the harness as test items."""
