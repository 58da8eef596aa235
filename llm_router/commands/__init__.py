"""The commands of the command line: each module has `run(arguments)`, which gives the exit code (`exits`)."""
