"""The networks, their training and their use."""
