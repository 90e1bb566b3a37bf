"""Which data set does a picture come from? Equal draws, transformations, classifiers and what they find."""
