"""What travels: server-sent events, chat requests, provider dialects."""
