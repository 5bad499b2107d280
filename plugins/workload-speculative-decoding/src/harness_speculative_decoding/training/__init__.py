"""How the built-in models are trained, and how a draft is aligned."""
