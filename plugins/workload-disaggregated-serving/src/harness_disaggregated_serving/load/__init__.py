"""What is asked of a server: when requests arrive, how long they are, and how fast they must be answered."""
