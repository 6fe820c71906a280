"""Operations on arrays, without gradients: NumPy arrays in, NumPy arrays out."""

from numbanet.ops.activation import relu as relu
from numbanet.ops.activation import relu_backward as relu_backward
from numbanet.ops.conv import conv2d as conv2d
from numbanet.ops.conv import conv2d_backward_input as conv2d_backward_input
from numbanet.ops.conv import conv2d_backward_weight as conv2d_backward_weight
