"""What every stage imports: the recipe, its validation, paths, files and errors. No torch."""
