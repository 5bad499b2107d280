"""What is kept of trials and runs: types, files, and the numbers over trials."""
