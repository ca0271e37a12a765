"""What kind of thing an answer is: its parts."""
