"""A speech-to-text server: openai-whisper behind OpenAI's interface for transcriptions."""
