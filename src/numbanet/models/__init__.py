"""Networks to train: builders, and a registry of them by name."""

from numbanet.models.builder import convnet as convnet
from numbanet.models.convnetjs import convnetjs as convnetjs
from numbanet.models.digits import digits as digits
from numbanet.models.lenet import lenet5 as lenet5
from numbanet.models.registry import get as get
from numbanet.models.registry import names as names
from numbanet.models.resnet import ResNet as ResNet
from numbanet.models.resnet import resnet18 as resnet18
from numbanet.models.resnet import resnet34 as resnet34
from numbanet.models.resnet import resnet50 as resnet50
from numbanet.models.resnet import resnet101 as resnet101
from numbanet.models.resnet import resnet152 as resnet152
from numbanet.models.resnet import resnext50_32x4d as resnext50_32x4d
from numbanet.models.resnet_cifar import ResNetCifar as ResNetCifar
from numbanet.models.resnet_cifar import resnet20 as resnet20
from numbanet.models.resnet_cifar import resnet56 as resnet56
from numbanet.models.vgg import VGG as VGG
from numbanet.models.vgg import vgg11 as vgg11
from numbanet.models.vgg import vgg11_bn as vgg11_bn
from numbanet.models.vgg import vgg13 as vgg13
from numbanet.models.vgg import vgg13_bn as vgg13_bn
from numbanet.models.vgg import vgg16 as vgg16
from numbanet.models.vgg import vgg16_bn as vgg16_bn
from numbanet.models.vgg import vgg19 as vgg19
from numbanet.models.vgg import vgg19_bn as vgg19_bn
