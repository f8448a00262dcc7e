"""Data: raw tables from a loader, a feature schema fitted on the training part, encoded sets."""
