"""Data utility (figure 3 of the paper): what else the encoder's embeddings are good for."""
