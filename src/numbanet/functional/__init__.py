"""Differentiable functions of Tensors, named and behaving as torch.nn.functional."""

from numbanet.functional.activation import relu as relu
from numbanet.functional.conv import conv2d as conv2d
from numbanet.functional.elementwise import abs as abs
from numbanet.functional.elementwise import add as add
from numbanet.functional.elementwise import clamp as clamp
from numbanet.functional.elementwise import div as div
from numbanet.functional.elementwise import exp as exp
from numbanet.functional.elementwise import log as log
from numbanet.functional.elementwise import maximum as maximum
from numbanet.functional.elementwise import minimum as minimum
from numbanet.functional.elementwise import mul as mul
from numbanet.functional.elementwise import neg as neg
from numbanet.functional.elementwise import pow as pow
from numbanet.functional.elementwise import sqrt as sqrt
from numbanet.functional.elementwise import sub as sub
from numbanet.functional.elementwise import where as where
from numbanet.functional.matmul import linear as linear
from numbanet.functional.matmul import matmul as matmul
from numbanet.functional.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from numbanet.functional.pool import avg_pool2d as avg_pool2d
from numbanet.functional.pool import max_pool2d as max_pool2d
