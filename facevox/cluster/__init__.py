"""Long programs as jobs of a cluster: described, split, submitted, requeued and watched.

Jobs are checked and watched on a login node, where time and memory are scarce: submitit and YAML are imported
by the functions that need them, everything else is the standard library and NumPy.
"""
