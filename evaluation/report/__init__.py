"""The report of a run, its numbers, and leaderboards of several runs."""
