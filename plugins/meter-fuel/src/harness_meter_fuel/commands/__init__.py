"""Commands that plugin `fuel` adds to `harness`."""
