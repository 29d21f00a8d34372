"""Released models behind HTTP: a queue and a worker thread for each, and OpenAI's shapes."""
