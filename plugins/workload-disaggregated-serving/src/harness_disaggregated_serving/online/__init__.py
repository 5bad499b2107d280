"""Workload `greenllm-online`: a day of grid intensity and load, replayed by the scheduler that switches as it goes."""
