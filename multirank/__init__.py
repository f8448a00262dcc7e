"""multirank command line: one command, a sub-command for each job."""
