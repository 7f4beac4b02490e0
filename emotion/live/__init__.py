"""Faces followed and judged picture by picture: in the server, in a window, in a file."""
