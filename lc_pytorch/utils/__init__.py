"""How well faces and voices find each other: measures over embeddings, and the evaluation of a model."""
