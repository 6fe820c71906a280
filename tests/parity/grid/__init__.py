"""A grid of cases over every option of every function, each answered (or refused) by numbanet and by PyTorch.

`pairs` chooses the cases and `cases` makes them, `values` is what they are made of, `running` and `compare` run and
compare one, `rules` has what several functions refuse, `known` lists where the libraries differ and why, and `instead`
what numbanet answers there; the other files are the table of functions, a family each, and those of layers without
parameters, `stateless` and `shaping`.
``python -m tests.parity.grid`` prints what came out.
"""
