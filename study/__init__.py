"""Does label-free pretraining help a neural potential? A study answers with one command."""
