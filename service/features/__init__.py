"""Feature rows for a request: where they come from and what was missing."""
