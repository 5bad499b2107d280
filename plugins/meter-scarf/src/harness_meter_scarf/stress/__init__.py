"""Water stress: WRI's ratios and codes, and the factor of a window by month, by year and over years to come."""
