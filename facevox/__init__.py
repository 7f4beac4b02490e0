"""What the three packages share: errors, command lines, files, media, faces, batches, reports.

Importing this package costs the standard library and NumPy; everything heavier is imported by the
module that needs it, when it needs it.
"""

__version__ = "0.1.0"
