"""Load tests and benchmarks. They speak HTTP to the service."""
