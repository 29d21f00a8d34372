"""SQLite and PostgreSQL: which databases, how to wait for them, their schemas, a dump."""
