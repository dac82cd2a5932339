"""FHIR R4 over REST: reading one patient whole, and filing what was written."""
