"""Which configuration emits least: stored cells, scheduler, winners, and the table of a run."""
