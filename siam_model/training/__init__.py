"""One training: a model fitted to some videos and stopped by others, interrupted and gone on with to the bit."""
