"""What learns: the network, its data, losses, training, measurement and card."""
