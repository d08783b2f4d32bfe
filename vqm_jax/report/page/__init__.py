"""Pages of frames and results under a slider."""
