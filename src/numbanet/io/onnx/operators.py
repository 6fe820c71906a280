"""The operators that are known, by their names."""

from numbanet.io.onnx import functions, layers, windows

OPERATORS = {**layers.OPERATORS, **windows.OPERATORS, **functions.OPERATORS}
