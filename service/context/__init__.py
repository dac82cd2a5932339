"""Choosing facts within a token budget, and rendering them into prompts. Pure."""
