"""numbanet: convolutional networks whose every kernel is Python, compiled by Numba."""

from numbanet import functional as functional
from numbanet import ops as ops
from numbanet.dispatch import use as use
from numbanet.settings import get_device as get_device
from numbanet.settings import get_precision as get_precision
from numbanet.settings import precision as precision
from numbanet.settings import set_device as set_device
from numbanet.settings import set_precision as set_precision
from numbanet.tape import enable_grad as enable_grad
from numbanet.tape import is_grad_enabled as is_grad_enabled
from numbanet.tape import no_grad as no_grad
from numbanet.tensor import Tensor as Tensor
from numbanet.tensor import tensor as tensor

__version__ = "0.1.0"
