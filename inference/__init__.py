"""What uses a trained network: views, shapes and films of it."""
