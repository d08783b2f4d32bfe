"""Records of TFDS: what they are, and the builders that write them."""
