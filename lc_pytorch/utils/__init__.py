"""Measures over the embeddings of faces and voices, and the evaluation of a model."""
