"""The MobileNetV3Large classifier: network, batches, training, export and model card."""
