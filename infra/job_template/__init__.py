"""A new job of one's own: its files from templates, ready to train and to be tested."""
