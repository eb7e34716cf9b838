"""Pictures, charts and reports for people to look at."""
