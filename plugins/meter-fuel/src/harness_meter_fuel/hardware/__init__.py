"""What devices are made of, what they are called, and what their making is estimated to emit."""
