"""Long programs as jobs of a cluster: which there are, how they are cut up, submitted, requeued and watched.

Imports the standard library only, and submitit or YAML where they are needed: a job is described, checked and
watched on a login node, which has neither time nor memory for more.
"""
