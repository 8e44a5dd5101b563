"""The leaderboard command: show, filter, merge, compare and export sweeps, or run one trial again."""
