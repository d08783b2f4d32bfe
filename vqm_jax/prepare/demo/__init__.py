"""Scenes of the demo, rendered from photographs."""
