"""Parts of the report's page: each makes one section of markup from plain values."""
