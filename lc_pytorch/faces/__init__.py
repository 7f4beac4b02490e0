"""Faces out of pictures and videos, their embeddings, and one group per person."""
