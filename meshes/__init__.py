"""Exports heads as meshes for other programs: unfolds, textures and writes a surface."""
