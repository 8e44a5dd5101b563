"""What a sweep will do: its options, its plan, the order of its trials, and how it is resumed."""
