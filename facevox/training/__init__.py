"""What training programs on torch share; a package of its own, because importing its modules costs torch.

`import facevox` does not import it: programs without torch (the emotion server) never need it.
"""
