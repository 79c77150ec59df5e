"""The emulator's accounts: plans, prices, cycles, statements."""
