"""Where runs are kept: a folder or a URL, its index, and SQL over it."""
