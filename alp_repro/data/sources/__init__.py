"""What the data sets are made from: official archives, folders of images."""
