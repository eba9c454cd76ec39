"""One training: a model fitted to some videos and stopped by others, interrupted and resumed, bit for bit."""
