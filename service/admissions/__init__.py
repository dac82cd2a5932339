"""Admissions as they are watched here: what was heard is stored, then acted on, patient by patient."""
