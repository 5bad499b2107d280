"""Passes of a causal language model: caches that can be rolled back, fused and captured passes, 8-bit weights."""
