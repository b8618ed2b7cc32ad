"""What every wing knows of a matrix of labels, (N, columns) int64: one value that is no class."""

MISSING = -1  # a label that is not known
