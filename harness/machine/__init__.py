"""This machine: what it is, which of its devices are taken, which processes were left behind."""
