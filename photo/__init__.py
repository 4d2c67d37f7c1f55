"""Turns any photo of a person into a picture, a mask and a camera of the kind that the training data have."""
