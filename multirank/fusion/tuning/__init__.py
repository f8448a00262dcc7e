"""`multirank fusion tune`: weights of a formula, searched on labelled rankings.

labelled -> goals (metrics, what must be kept) -> search -> report, picture
"""
