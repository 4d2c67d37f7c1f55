"""PyTorch helpers that know nothing of the models: persistence, devices, processes, statistics and ops."""
