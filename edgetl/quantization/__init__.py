"""int8 and float16."""
