"""`lookonce doctor`: is this deployment sound? Each part is asked, then judged by pure functions."""
