"""Compiled score-fusion formulas: task scores in, one fused score out."""
