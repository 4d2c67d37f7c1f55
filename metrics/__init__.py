"""Figures of how good a generator of heads is: by features of pictures, by view, and by the shape and faces of its heads."""
