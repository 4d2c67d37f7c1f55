"""Heads as meshes for other programs: a surface unfolded, textured and written."""
