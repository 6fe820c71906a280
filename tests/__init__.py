"""The tests. NumPy's own products, which only definitions and expectations use, compute on one thread here.

Its other threads wait busily: with a process of tests on every core, they took more time than the tests themselves.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before anything imports NumPy
