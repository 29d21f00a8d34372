"""The command line: click signatures only; what a command does is imported when it runs, so help is instant."""
