"""Peers: what else a user could serve `feed200` with, on the same core, asked the same questions.

environments   a virtual environment for each, made by the benchmark
servers/       what runs in it: the product, with the handler that a good engineer would write
handler        that handler: one MGET, numpy, onnxruntime over the undivided graph
running        a server under test: started, checked, loaded, stopped
report         the table in the README
"""
