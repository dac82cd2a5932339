"""Quality measured all the time: what the rules, the reviewers and the clinicians say of what was written."""
