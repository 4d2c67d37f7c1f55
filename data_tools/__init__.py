"""Making and checking data sets of pictures, masks and cameras."""
