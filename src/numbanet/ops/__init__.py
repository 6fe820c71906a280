"""Operations on arrays, without gradients: NumPy arrays in, NumPy arrays out."""

from numbanet.ops.activation import relu as relu
from numbanet.ops.activation import relu_backward as relu_backward
