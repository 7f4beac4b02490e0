"""The foundation that the three packages share: errors, command lines, files, media, faces, batches, reports.

Importing this package loads the standard library and NumPy. OpenCV, Pillow, MediaPipe, tqdm, matplotlib and
TensorBoard are imported by the functions that need them: `--help` stays fast, and slim images do without.
"""

from facevox.program import begin

__version__ = "0.1.0"

begin()
