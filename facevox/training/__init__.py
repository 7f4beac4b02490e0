"""The parts that training programs on torch share; a separate package, because its modules import torch.

`import facevox` does not import it: programs without torch (the emotion server) never need it.
"""
