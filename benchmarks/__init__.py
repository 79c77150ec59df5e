"""Speed and size, measured against something in the same run; never in a timed test."""
