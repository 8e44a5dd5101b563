"""What results are worth: confirmation, intervals, comparisons and tables."""
