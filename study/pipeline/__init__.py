"""Jobs: one pretraining or one finetuning, identified by a hash and run to its outcome."""
