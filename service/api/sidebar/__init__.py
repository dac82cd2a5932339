"""The sidebar: a summary where the clinician already is, in a frame of the EHR's.

Nothing of a chart is shown here that this user's own token cannot read now (SAFETY 21), and every view of a
run stands in the audit log before it is shown.
"""
