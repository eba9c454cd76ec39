"""Pictures of one video or one training, for `nemo predict` and `nemo train`."""
