"""When nights run: crontab, systemd timers, or in the foreground."""
