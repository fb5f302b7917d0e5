"""The grid of explanations: its pictures, and what is not shown."""
