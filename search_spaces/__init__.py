"""What a sweep searches: a base configuration and distributions over some of its fields."""
