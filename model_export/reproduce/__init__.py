"""The papers' experiments once more: `python -m model_export.reproduce`, or `make reproduce`."""
