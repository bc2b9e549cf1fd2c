"""Download files of a Hugging Face Hub repository at one commit: recipes' sources, and exported models."""
