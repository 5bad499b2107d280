"""Workload `greenllm-simulated`: an event-driven simulator on a clock of its own; everything it says is simulated."""
