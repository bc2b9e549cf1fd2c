"""From files as people have them to a table of strings and a recipe: what `reprise init` reads, guesses and writes."""
