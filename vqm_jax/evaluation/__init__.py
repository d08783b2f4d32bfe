"""Scores of restored clips: taken, kept, compared with simple filters."""
