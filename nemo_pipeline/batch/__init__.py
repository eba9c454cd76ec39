"""A run over many videos: plan, child processes, and the resulting file.

discover -> plan -> tasks -> cluster (worker -> process -> child) -> merge -> assemble; `run` puts them in a row.
"""
