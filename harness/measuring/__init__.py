"""One trial, in a process of its own: opens, warms up, measures windows, turns registers into joules."""
