"""Review for quality, as rules: which runs are reviewed, what is planted, how far two reviewers agree.

Values in, values out: nothing here reads a store, a clock or a setting.
"""
