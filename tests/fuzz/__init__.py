"""Fuzzing of everything that reads foreign bytes; see `targets`, and `run` for longer hunts with atheris."""
