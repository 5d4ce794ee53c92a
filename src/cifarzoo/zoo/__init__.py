"""What the zoo knows: names, cards, weights files, recipes as data."""
