"""Checkpoints: safetensors files, written atomically; models in ONNX files. No pickle anywhere."""

from numbanet.io.atomic import write_atomically as write_atomically
from numbanet.io.checkpoint import load as load
from numbanet.io.checkpoint import load_with_metadata as load_with_metadata
from numbanet.io.checkpoint import save as save
from numbanet.io.model import load_model as load_model
from numbanet.io.model import save_model as save_model
from numbanet.io.onnx import load_onnx as load_onnx
from numbanet.io.state import load_state as load_state
from numbanet.io.state import save_state as save_state
