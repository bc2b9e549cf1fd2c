"""Read, compare and grade the results of runs, without changing them."""
