"""With which code a process of ours ends: what scripts, shells and service managers go by."""

OK = 0
FAILED = 1
USAGE = 2  # as argparse has it
PORT = 69  # EX_UNAVAILABLE of sysexits.h
CONFIG = 78  # EX_CONFIG
# As a shell reports what a signal ended: 128 and its number.
INTERRUPTED = 130
PIPE_CLOSED = 141
