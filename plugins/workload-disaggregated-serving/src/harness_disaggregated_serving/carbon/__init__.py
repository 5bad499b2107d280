"""Carbon of devices that serve together: accounting, savings, break-even, and embodied figures with sources."""
