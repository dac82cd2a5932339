"""Who is asking: roles, tokens of an OpenID provider, sessions, and the one-time token of a first start."""
