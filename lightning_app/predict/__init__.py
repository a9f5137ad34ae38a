"""The trained heads on slides and images, and the files that show what they found."""
