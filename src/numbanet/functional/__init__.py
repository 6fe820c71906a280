"""Differentiable functions of Tensors, named and behaving as torch.nn.functional."""

from numbanet.functional.activation import relu as relu
from numbanet.functional.conv import conv2d as conv2d
