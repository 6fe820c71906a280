"""Data sets, augmentation and loading: NumPy only, apart from the engine."""

from .augment import Augmentation, Cutout, Normalize, RandomCrop, RandomHorizontalFlip, RandomShift
from .cifar import cifar10, cifar100
from .dataset import Dataset, channel_statistics
from .digits import load_digits
from .idx import mnist, read_idx
from .loader import DataLoader

__all__ = [
    "Augmentation",
    "Cutout",
    "DataLoader",
    "Dataset",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomShift",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "load_digits",
    "mnist",
    "read_idx",
]
