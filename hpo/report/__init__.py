"""A sweep as one page for people: what won, how sure that is, what it cost, what to try next."""
