"""Train multi-task ranking models in torch and export them as bundles.

Never imports the service.
"""
