"""What happens to each parameter of a model, and why; and the plan of a finished model carried out."""
