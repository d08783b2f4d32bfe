"""Pairs made of videos: coded, aligned, scored."""
