"""The one exception family that a user's mistake ends in."""


class UserError(ValueError):
    """A mistake the user can mend: one line that names the thing and the way out.

    The command prints it to stderr and exits with code 2; the library raises it like any
    ValueError.
    """
