"""Offers the workload `greenllm`: one model served by a pair of devices. Importing this module imports no torch."""
