"""Helpers around the parameters of modules, as in torch.nn.utils."""

from numbanet.optim.clip import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
