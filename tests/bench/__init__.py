"""What the work costs, beside a baseline on the same work in the same run: `make bench`."""
