"""Checking what the model wrote against the record, and completing it. Pure."""
