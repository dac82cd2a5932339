"""Edges towards other systems: FHIR servers today. Nothing here knows of `service`."""
