"""Ask this chart: a question about one patient in, sentences of the record with their sources out.

A question is data: it chooses what is looked at, and never how an answer is judged. Every sentence passes the
same rules as a summary's. Nothing is guessed, nothing is advised, and absence is never inferred (SAFETY 5).
"""
