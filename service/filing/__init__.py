"""Filing, and what becomes of a document afterwards: attested, amended, withdrawn, expired, stopped.

Each act reads the document as it is on the server, decides, and writes for that version alone. Whatever dies
on the way is done again from the start and finds what was written. It must never overwrite someone else's
change.
"""
