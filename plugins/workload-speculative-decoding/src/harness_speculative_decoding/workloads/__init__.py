"""The workloads and the scorer: the one folder that knows the harness."""
