"""Networks to train: builders, and a registry of them by name."""

from numbanet.models.builder import convnet as convnet
from numbanet.models.convnetjs import convnetjs as convnetjs
from numbanet.models.digits import digits as digits
from numbanet.models.lenet import lenet5 as lenet5
from numbanet.models.registry import get as get
from numbanet.models.registry import names as names
from numbanet.models.resnet_cifar import ResNetCifar as ResNetCifar
from numbanet.models.resnet_cifar import resnet20 as resnet20
