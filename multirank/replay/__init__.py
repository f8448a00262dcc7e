"""`multirank replay`: logged decisions, scored again by a version, and what has changed."""
