"""A user's own table: Parquet or CSV, one candidate row a line, its columns named in the YAML."""
