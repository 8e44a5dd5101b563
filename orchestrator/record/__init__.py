"""The record of a sweep on the disk: its journal, the state that it folds to, and what is derived from that."""
