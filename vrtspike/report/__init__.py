"""Pages, charts and pictures for people to look at."""
