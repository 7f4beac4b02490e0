"""Networks that map faces and voices into one space, and their files.

from lc_pytorch.models import FaceVoiceModel, load_model
"""

from lc_pytorch.models.face_voice import FaceVoiceModel
from lc_pytorch.models.hq import HQVoxCelebModel
from lc_pytorch.models.store import TrainedModel, load_model

__all__ = ["FaceVoiceModel", "HQVoxCelebModel", "TrainedModel", "load_model"]
