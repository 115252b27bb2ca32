"""What a student looks like on the Hub."""
