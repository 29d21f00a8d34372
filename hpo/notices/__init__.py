"""Who hears of a night: webhooks, mail, programs, heartbeats; an outbox that loses nothing."""
