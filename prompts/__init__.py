"""Prompt template sets: versioned data, one folder a set. No code lives here."""
