"""What a classifier scores: measures over people, calibration, the report and its pictures."""
