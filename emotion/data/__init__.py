"""AIHub's pictures and annotations, face crops, samples, and who is in which part."""
