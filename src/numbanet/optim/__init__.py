"""Optimizers and learning-rate schedules, as in torch.optim."""

from numbanet.optim import lr_scheduler as lr_scheduler
from numbanet.optim.adadelta import Adadelta as Adadelta
from numbanet.optim.adagrad import Adagrad as Adagrad
from numbanet.optim.adam import Adam as Adam
from numbanet.optim.adam import AdamW as AdamW
from numbanet.optim.clip import clip_grad_norm_ as clip_grad_norm_
from numbanet.optim.clip import clip_grad_value_ as clip_grad_value_
from numbanet.optim.optimizer import Optimizer as Optimizer
from numbanet.optim.rmsprop import RMSprop as RMSprop
from numbanet.optim.sgd import SGD as SGD
