"""Workload `serve-endpoint`: a streaming client of any server of the OpenAI API, under open-loop load."""
