"""Data sets, augmentation and loading."""

from numbanet.data.augment import Augmentation as Augmentation
from numbanet.data.augment import Cutout as Cutout
from numbanet.data.augment import Normalize as Normalize
from numbanet.data.augment import RandomCrop as RandomCrop
from numbanet.data.augment import RandomHorizontalFlip as RandomHorizontalFlip
from numbanet.data.augment import RandomShift as RandomShift
from numbanet.data.cifar import cifar10 as cifar10
from numbanet.data.cifar import cifar100 as cifar100
from numbanet.data.dataset import Dataset as Dataset
from numbanet.data.dataset import channel_statistics as channel_statistics
from numbanet.data.digits import load_digits as load_digits
from numbanet.data.idx import mnist as mnist
from numbanet.data.idx import read_idx as read_idx
from numbanet.data.loader import DataLoader as DataLoader
