"""Loops in C that `pip install` compiles, and their Python faces: the same name, `.c` and `.py`.

No argument of a face makes its loop touch memory that is not the argument's.
"""
