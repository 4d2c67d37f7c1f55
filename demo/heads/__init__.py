"""Synthetic heads: people drawn at random, hair strand by strand, rendered from every side with exact cameras."""
