"""Evaluation of a trained model: embeds files, finds matches, writes tables and pictures."""
