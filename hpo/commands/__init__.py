"""One file for each command: its flow on one screen."""
