"""An old project in the family's format: what is pickled with its snapshots, and stubs of what is not."""
