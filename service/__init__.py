"""The service: one use case, its pure core, and its edges."""
