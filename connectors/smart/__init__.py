"""SMART App Launch 2.2, as an EHR sees us: what it offers, tokens for a code, a user's requests."""
