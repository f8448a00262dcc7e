"""Compiled score-fusion formulas: task scores in, one fused score out.

    fusions/*.yaml -> directory -> document -> formula -> language -> program -> compile -> evaluate

Knows nothing of features' storage, of models, of HTTP; numpy, pydantic and yaml only.
"""
