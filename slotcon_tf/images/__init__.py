"""The one image contract: files to pixels, pixels to normalised images."""
