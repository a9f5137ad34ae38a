"""The verbs of the command line and the tables they print; the work is done in other wings."""
