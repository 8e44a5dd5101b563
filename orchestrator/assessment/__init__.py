"""The worth of results: confirmation, intervals, comparisons and tables."""
