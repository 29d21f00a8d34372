"""Whether a night's release replaces the champion: evidence, and the ledger of all claims."""
