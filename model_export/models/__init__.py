"""Multi-task ranking networks, one method a file, all in three stages."""
