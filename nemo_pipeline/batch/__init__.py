"""A run over many videos: what is to be done, who does it, and the file that comes out.

discover -> plan -> tasks -> cluster (worker -> process -> child) -> merge -> assemble; `run` puts them in a row.
"""
