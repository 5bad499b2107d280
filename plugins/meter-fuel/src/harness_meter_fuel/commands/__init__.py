"""Commands that this plugin adds to `harness`; imported when one is called."""
