"""From values to tables, and from these to findings in plain words."""
