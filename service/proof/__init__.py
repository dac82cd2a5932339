"""Checking a filed document anew with read access to its server alone: no store, no engine."""
