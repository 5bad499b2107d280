"""From measurements to records: quality, impacts, cost per functional unit; and again with other factors."""
