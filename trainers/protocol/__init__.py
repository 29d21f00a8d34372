"""What crosses the border between hpo and trainers; standard library only."""
