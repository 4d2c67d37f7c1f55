"""Programs that show what the toolkit does, and the open data set of rendered heads they use."""
