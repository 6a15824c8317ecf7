"""Fuzzing: a harness for each parser, which takes any bytes, and the inputs that it begins with.

The suite runs the harnesses under hypothesis; `make fuzz` runs them under atheris, which looks for
inputs that reach further into the code. What it finds goes to `corpus/<target>/`, and so becomes a
test.
"""
