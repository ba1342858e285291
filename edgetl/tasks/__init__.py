"""What is learned: targets, losses' weights, metrics."""
