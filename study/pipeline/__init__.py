"""A pretraining or a finetuning as a piece of work, named by its hash."""
