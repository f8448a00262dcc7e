"""Compiled score-fusion formulas: task scores in, one fused score out.

    fusions/<name>.yaml -> document -> formula -> language -> compile (operators) -> evaluate
                                                                      explain stands on top

Knows nothing of features' storage, of models, of HTTP; numpy, pydantic and yaml only.
"""
