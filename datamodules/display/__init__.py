"""Dataset cards and contact sheets for people to look at."""
