"""Captured functions: a call is recorded once for its shapes and then replayed without the Python around it."""

from numbanet.capturing.captured import Captured as Captured
from numbanet.capturing.captured import capture as capture
