"""The commands of the command line: each module has `run(arguments) -> exit code`."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78
