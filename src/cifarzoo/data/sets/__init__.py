"""The image sets, from their official files."""
