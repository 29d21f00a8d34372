"""Machine and home examined; backups, and upgrades of databases."""
