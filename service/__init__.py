"""The FastAPI scorer. Never imports torch or model_export."""
