"""Layers: modules with parameters, one family a file."""

from numbanet.nn import init as init
from numbanet.nn.container import Identity as Identity
from numbanet.nn.container import ModuleList as ModuleList
from numbanet.nn.container import Sequential as Sequential
from numbanet.nn.conv import Conv2d as Conv2d
from numbanet.nn.linear import Linear as Linear
from numbanet.nn.module import Module as Module
from numbanet.nn.parameter import Parameter as Parameter
