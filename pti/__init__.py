"""Inversion: from photos of one person to a latent, a tuned generator, a turning head and a mesh (Roich 2021, PTI)."""
