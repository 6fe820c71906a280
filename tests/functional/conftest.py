"""The fixtures of the tests of kernels serve here too."""

from tests.ops.conftest import poisoned as poisoned
