"""The audit log as FHIR AuditEvents: what an entry says in the words of IHE BALP, and how it is sent."""
