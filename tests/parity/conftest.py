"""PyTorch computes on one thread here: its threads wait busily, for cores that other processes of the tests use."""

import torch

torch.set_num_threads(1)
