"""Training: the loop, evaluation, checkpoints, logs and progress."""

from numbanet.train.evaluate import Meter as Meter
from numbanet.train.evaluate import evaluate as evaluate
from numbanet.train.fit import NonFiniteLoss as NonFiniteLoss
from numbanet.train.fit import fit as fit
from numbanet.train.history import EpochRecord as EpochRecord
from numbanet.train.history import History as History
from numbanet.train.interrupt import Interrupted as Interrupted
