"""The configured Lightning trainer, and user-facing messages for its failures."""
