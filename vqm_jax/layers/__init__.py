"""Layers that two or more systems share; a block of one system lives in that system's file."""
