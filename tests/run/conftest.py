"""Names that moved to tests/support/runs.py, for tests that are still on their way."""

from tests.support.runs import CONFIG, arrays, copy_of, run, write_clip  # noqa: F401
