"""Scores of a classifier: measures over people, calibration, the report and its pictures."""
