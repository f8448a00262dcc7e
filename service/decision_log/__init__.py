"""The decision log: what was asked, seen, scored and answered, sampled, in files for later."""
