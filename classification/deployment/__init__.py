"""Trained models as files for other programs, and running such files."""
