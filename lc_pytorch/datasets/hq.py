"""HQ VoxCeleb's data set under its documented path; the code is in `lc_pytorch.hq.dataset`."""

from lc_pytorch.hq.dataset import HQVoxCelebDataset as HQVoxCelebDataset
from lc_pytorch.hq.dataset import create_hq_voxceleb_dataloaders as create_hq_voxceleb_dataloaders
