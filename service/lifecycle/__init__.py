"""Model versions: found, verified, leased, drained."""
