"""Choices that options offer and networks take, in one place that costs nothing to import."""

DEFAULT_FACE_MODEL = "google/vit-base-patch16-224-in21k"
DEFAULT_VOICE_MODEL = "facebook/wav2vec2-base"
PRECISIONS = ("fp32", "bf16")
AUTO, PILLOW, TORCHVISION = PICTURE_TRANSFORMS = ("auto", "pillow", "torchvision")
CHECKPOINTS = ("best", "last")
MEL_POOLINGS = ("flatten", "attentive", "statistics")
SETS = ("vox1", "vox2")  # of HQ VoxCeleb
DATASET_TYPES = {"vox1": ("vox1",), "vox2": ("vox2",), "both": SETS}
MEL_DTYPES = ("float32", "float16")
