"""The contract between the trainer and the server: manifest, feature schema, rows, encoding.

numpy and pydantic only; imported by both sides, importing neither.
"""
