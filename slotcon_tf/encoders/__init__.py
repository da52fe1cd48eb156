"""Networks that map images to one channels-last feature map."""
