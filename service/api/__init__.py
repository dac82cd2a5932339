"""Pages and JSON for people; see the README in this folder."""
