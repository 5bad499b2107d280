"""Segmentation networks, one file each, to be read beside the figures of their papers."""
