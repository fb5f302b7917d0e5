"""How `visualize` draws: what is pictured, where it stands, and single panels."""
