"""Archives for the challenge server."""
