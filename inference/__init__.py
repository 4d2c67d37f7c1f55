"""Uses trained networks: renders views, shapes and films."""
