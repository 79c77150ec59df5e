"""Commands about runs: submit, look at, control, export."""
