"""Blind studies: made, answered, evaluated."""
