"""Learning-rate schedules, as in torch.optim.lr_scheduler.

A schedule sets ``group["lr"]`` of every parameter group when it is made, and again at each call of `step`, which stands
after ``optimizer.step()``. The formulas that PyTorch applies to the former rate, rather than to the initial one, do so
here: schedules can be combined, and a rate that was changed by hand stays changed.
"""

from numbanet.optim.lr_scheduler.base import LRScheduler as LRScheduler
from numbanet.optim.lr_scheduler.one_cycle import OneCycleLR as OneCycleLR
from numbanet.optim.lr_scheduler.sequential import SequentialLR as SequentialLR
from numbanet.optim.lr_scheduler.simple import CosineAnnealingLR as CosineAnnealingLR
from numbanet.optim.lr_scheduler.simple import LambdaLR as LambdaLR
from numbanet.optim.lr_scheduler.simple import LinearLR as LinearLR
from numbanet.optim.lr_scheduler.simple import MultiStepLR as MultiStepLR
from numbanet.optim.lr_scheduler.simple import StepLR as StepLR
