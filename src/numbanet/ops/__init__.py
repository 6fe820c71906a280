"""Operations on arrays, without gradients: NumPy arrays in, NumPy arrays out."""

from numbanet.ops.activation import relu as relu
from numbanet.ops.activation import relu_backward as relu_backward
from numbanet.ops.conv import conv2d as conv2d
from numbanet.ops.conv import conv2d_backward_input as conv2d_backward_input
from numbanet.ops.conv import conv2d_backward_weight as conv2d_backward_weight
from numbanet.ops.optim import adadelta_step as adadelta_step
from numbanet.ops.optim import adagrad_step as adagrad_step
from numbanet.ops.optim import adam_step as adam_step
from numbanet.ops.optim import clamp_ as clamp_
from numbanet.ops.optim import rmsprop_step as rmsprop_step
from numbanet.ops.optim import scale_ as scale_
from numbanet.ops.optim import sgd_step as sgd_step
from numbanet.ops.optim import vector_norm as vector_norm
