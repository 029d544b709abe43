"""Real servers for stacks: speech to text by openai-whisper, and the weights that its images and vLLM's carry."""
