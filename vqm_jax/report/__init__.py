"""Results as pictures and tables; knows nothing of networks."""
