"""Lightning callbacks: what accompanies training and is not the model's business."""
