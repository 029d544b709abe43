"""A simulated Whisper server, on a simulated card. It cannot hear: clips carry their transcripts with them."""
