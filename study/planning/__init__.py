"""What a study is going to do, and what it costs."""
