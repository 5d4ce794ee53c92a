"""Files: written whole or not at all, fetched and continued, with progress."""
