"""Workload `greenllm`: one process a role, and the client that sends them requests and keeps the time."""
