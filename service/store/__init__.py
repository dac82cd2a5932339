"""Where runs, audit entries and kept bytes lie: encrypted, in one transaction a run, in one SQLite file."""
