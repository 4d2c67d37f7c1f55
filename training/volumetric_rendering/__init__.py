"""Rays, tri-grid lookup, sampling along rays and marching; settings and noise are passed in, nothing is stored."""
