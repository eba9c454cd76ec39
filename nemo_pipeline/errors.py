"""The one exception that people see."""


class NemoError(Exception):
    """Something the user can act on. Its text is one clear sentence: what is wrong, in which file, what to do."""
