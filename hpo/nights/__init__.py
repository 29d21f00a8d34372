"""One sweep, every night: what is due, its steps, what is kept, its page."""
