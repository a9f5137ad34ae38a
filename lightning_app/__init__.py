"""The application: configuration, command line, training run and callbacks."""

__version__ = "0.1.0"
