"""What runs: the command line, experiments, training, evaluation, run folders, pictures."""
