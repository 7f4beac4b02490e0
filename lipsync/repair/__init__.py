"""A copy of a file with its sound shifted, and the check that it is in sync."""
