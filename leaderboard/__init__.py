"""From a run's files to a submission, and from submissions to a leaderboard. Reads files only."""
