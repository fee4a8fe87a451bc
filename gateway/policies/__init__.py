"""What is asked of every image and text: questions with labels, and when their score counts as flagged."""
