"""The text that is trained on, prompts, and preference pairs."""
