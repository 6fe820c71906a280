"""ONNX files as modules: `load_onnx`.

``file`` reads the file and its tensors, ``graph`` turns nodes into the steps of a module, ``node`` is what it hands to
the operators, which stand in ``layers`` (those with parameters), ``functions`` and ``windows`` (pooling, resizing).
"""

from numbanet.io.onnx.graph import OnnxModel as OnnxModel
from numbanet.io.onnx.graph import load_onnx as load_onnx
