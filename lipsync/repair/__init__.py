"""A file whose sound is shifted, and whether it is right then."""
