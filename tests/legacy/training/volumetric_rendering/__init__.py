"""Rays and their marching in the old project."""
