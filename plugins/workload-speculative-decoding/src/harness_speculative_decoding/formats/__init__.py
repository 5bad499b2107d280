"""Models in other formats, turned into folders of `save_pretrained`."""
