"""A store behind a URL: a mirror on this machine, claimed uploads, a published index."""
