"""How values are shown: HTML for pages and notebooks, charts within it, and data frames."""
