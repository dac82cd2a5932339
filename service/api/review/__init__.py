"""The review console: one module a room, each with routes of its own."""
