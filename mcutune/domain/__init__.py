"""The vocabulary: pure, numpy at most, no input or output."""
