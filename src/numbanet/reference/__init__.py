"""Every operation written out from its definition in NumPy: the oracle of the tests, and the last candidate.

Each module exports ``CANDIDATES``; its functions take and return whole arrays, compute in the dtype that they are
given, and are meant to be read next to the definition, not to be fast.
"""
