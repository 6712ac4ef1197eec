"""The base class of everything that a user, rather than the program, has to put right."""


class UserError(Exception):
    """A mistake in a config, a command or an input file: the command line prints it and exits with 2."""
