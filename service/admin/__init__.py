"""The way of an operator: calls that change what is served, and who may make them."""
