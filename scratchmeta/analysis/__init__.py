"""What the gradients of MAML, FOMAML and Reptile are made of, and how alike they are."""
