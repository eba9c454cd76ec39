"""A run: what was asked for, who trains and who tests, folds, the search in each, several processes."""
