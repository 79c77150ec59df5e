"""The command line of the emulator: its options, and the process that listens."""
