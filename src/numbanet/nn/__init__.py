"""Layers: modules with parameters, one family a file."""

from numbanet.nn import init as init
from numbanet.nn.activation import GELU as GELU
from numbanet.nn.activation import LeakyReLU as LeakyReLU
from numbanet.nn.activation import LogSoftmax as LogSoftmax
from numbanet.nn.activation import ReLU as ReLU
from numbanet.nn.activation import Sigmoid as Sigmoid
from numbanet.nn.activation import SiLU as SiLU
from numbanet.nn.activation import Softmax as Softmax
from numbanet.nn.activation import Tanh as Tanh
from numbanet.nn.container import Identity as Identity
from numbanet.nn.container import ModuleList as ModuleList
from numbanet.nn.container import Sequential as Sequential
from numbanet.nn.conv import Conv2d as Conv2d
from numbanet.nn.flatten import Flatten as Flatten
from numbanet.nn.flatten import Unflatten as Unflatten
from numbanet.nn.linear import Linear as Linear
from numbanet.nn.module import Module as Module
from numbanet.nn.norm import BatchNorm1d as BatchNorm1d
from numbanet.nn.norm import BatchNorm2d as BatchNorm2d
from numbanet.nn.parameter import Parameter as Parameter
from numbanet.nn.pool import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from numbanet.nn.pool import AvgPool2d as AvgPool2d
from numbanet.nn.pool import MaxPool2d as MaxPool2d
from numbanet.nn.summary import summary as summary
