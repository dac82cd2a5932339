"""Texts out of attachments of any common format, read in a process that can be killed.

`formats` is pure and trusts nothing; it still runs in a child only, because a parser may hang, crash or eat
all memory on hostile input. `worker` holds that child. Nothing here logs, and no content stands in a message.
"""
