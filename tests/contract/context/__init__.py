"""The context on real charts."""
