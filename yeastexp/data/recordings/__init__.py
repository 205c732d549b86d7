"""People's image files: what axes they have, and the images (C, H, W) that they hold, read one at a time."""
