"""The one exception this package raises for whatever a user can mend."""


class SIKDError(RuntimeError):
    """Bad input or state, told in one line: what is wrong, in which file, and what to do."""
