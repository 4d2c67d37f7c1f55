"""GAN inversion: turns photos of a person into a latent, a tuned generator, a turning head and a mesh (Roich 2021, PTI)."""
