"""What leaves a run: model card, hub folder and embedded images."""
