"""Where runs and audit entries are kept: encrypted, in one transaction a run, in one SQLite file."""
