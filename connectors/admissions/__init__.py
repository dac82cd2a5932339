"""Admissions, transfers, discharges, merges and deaths, from whatever source a site offers.

Every source turns what it hears into the same few events (`events`) and counts what it could not read. A
source keeps nothing itself: where it must remember, it takes a value and gives back the next one.
"""
