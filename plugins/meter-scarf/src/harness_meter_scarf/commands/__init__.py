"""The commands `harness sites` and `harness scarf-aqueduct`."""
