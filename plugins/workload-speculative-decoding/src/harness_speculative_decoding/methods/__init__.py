"""The decoding methods and their laws, on any models with the same vocabulary."""
