"""The enhancers of Track 2, one file per method of the paper; `base` says what an enhancer is."""
