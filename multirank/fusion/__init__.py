"""`multirank fusion`: what product teams do to formulas, without a running service."""
