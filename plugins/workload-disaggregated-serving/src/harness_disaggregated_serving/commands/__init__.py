"""The command `harness greenllm`."""
