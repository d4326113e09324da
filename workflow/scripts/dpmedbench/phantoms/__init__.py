"""What is drawn where there are no data: an organ each, as its images show it."""
