"""Helpers around the parameters of modules, as in torch.nn.utils."""

from numbanet.optim.clip import clip_grad_norm_ as clip_grad_norm_
from numbanet.optim.clip import clip_grad_value_ as clip_grad_value_
