"""Cleaning of a data set of talking videos: stretches of one face, judged, cut out and in sync."""
