"""What verifies: the gradient checker, and the table of everything that is checked."""
