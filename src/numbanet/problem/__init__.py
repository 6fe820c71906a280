"""Problems: frozen descriptions of what shall be computed; shape arithmetic and every argument check, once.

One file an operation family; the same file names stand in `numbanet.reference`, `numbanet.ops`, `numbanet.functional`
and, as far as they fit, in `numbanet.cpu`.
"""

from numbanet.problem.base import Problem as Problem
