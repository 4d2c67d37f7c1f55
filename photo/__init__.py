"""From any photo of a person to a picture, a mask and a camera as the training data has them."""
