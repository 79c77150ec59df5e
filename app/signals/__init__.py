"""What a process tells of itself: metrics and probes, on a scrape port of its own. Decides nothing."""
