"""The network: its data, losses, training, evaluation and model card."""
