"""Training: losses, the loop with early stopping, held-out metrics, the run directory."""
