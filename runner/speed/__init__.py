"""How fast the networks are: counted from the work that they give a GPU, and measured on the machine at hand."""
