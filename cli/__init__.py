"""The `nemo` command: thin; the work is done in nemo_pipeline and siam_model. Installed as `nemo_cli`."""
