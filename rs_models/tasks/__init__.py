"""What follows pretraining: networks for a task, around any native backbone."""
