"""Many runs as a static site, without a server: their pages, leaderboards, histories, badges and tables."""
