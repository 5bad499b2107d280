"""Finding plugins, and holding what they give to its type."""
