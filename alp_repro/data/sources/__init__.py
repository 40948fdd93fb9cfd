"""Sources of the data sets: official archives, folders of images."""
