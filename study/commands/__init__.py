"""What the commands do, once their words are parsed; each is imported when it runs."""
