"""What came out, as data: statistics, advice, the summary."""
