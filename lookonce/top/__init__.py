"""`lookonce top`: a deployment at work, live in a terminal, from what its gateway's /metrics tells."""
