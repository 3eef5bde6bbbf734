"""Word, character and token error rates by utterance id, counted by sclite or as sclite counts."""
