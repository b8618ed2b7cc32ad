"""Data sets: the challenge's layout, its checks and figures, a drawn demo set, the image cache and batches."""
