"""The network for HQ VoxCeleb: a ViT for masked faces, a small network for mel spectrograms.

from lc_pytorch.models.hq import HQVoxCelebModel
"""

from lc_pytorch.choices import MEL_POOLINGS
from lc_pytorch.models.hq.model import HQVoxCelebModel

__all__ = ["MEL_POOLINGS", "HQVoxCelebModel"]
