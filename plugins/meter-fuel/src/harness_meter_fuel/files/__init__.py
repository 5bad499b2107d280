"""Files of other publishers, as they are offered: each kind is known by its columns and kept by name and digest."""
