"""Event-driven simulator of the serving configurations, on a clock of its own: everything it says is simulated."""
