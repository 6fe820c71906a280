"""A grid of cases over every option of every function, each answered (or refused) by numbanet and by PyTorch.

`cases` makes the cases, `values` what they are made of, `compare` runs one, `known` lists where the two differ and why;
the other files are the table of functions, a family each. ``python -m tests.parity.grid`` prints what came out.
"""
