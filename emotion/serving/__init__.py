"""The web server of the emotion classifier: live analysis over a WebSocket, uploads, metrics.

Imports neither TensorFlow nor torch. Pictures live in memory for the time of their analysis and nowhere else.
"""
