"""Messages of raw buffers between two processes, on one host or two; needs nothing of the harness."""
