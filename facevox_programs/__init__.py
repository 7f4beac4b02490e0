"""The top floor: which programs there are. It knows all packages; no package knows it."""
