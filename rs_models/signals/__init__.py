"""What a method learns from: views of images and losses on their embeddings."""
