"""Sets of faces with voices or spectrograms, their split by person, and how their files are read.

from lc_pytorch.datasets import FaceVoiceDataset, create_data_transforms
"""

from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.pairs import FilePair, list_folder_pairs, list_matched_pairs
from lc_pytorch.datasets.transforms import create_data_transforms

__all__ = [
    "FaceVoiceDataset",
    "FilePair",
    "PairDataset",
    "create_data_transforms",
    "list_folder_pairs",
    "list_matched_pairs",
]
