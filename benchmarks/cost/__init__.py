"""What a task costs, end to end, against the code of an earlier commit."""
