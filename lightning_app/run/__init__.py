"""A run's folder, its processes, its checkpoints and the encoders it probes."""
