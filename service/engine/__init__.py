"""The model behind one Protocol: prompts in, completions out."""
