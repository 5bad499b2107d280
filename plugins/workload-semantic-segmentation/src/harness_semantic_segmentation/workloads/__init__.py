"""The two workloads, their options and columns, and the listing of networks: the one folder that knows the harness."""
