"""What a space says of its search: who proposes, who stops early, with what it begins."""
