"""The report of a run and the leaderboard over several: contents, pages and templates."""
