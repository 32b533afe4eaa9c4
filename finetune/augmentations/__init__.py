"""What is done to training clips: one file and one class for each augmentation, and the table of all of them."""
