"""The sweep: who proposes trials, who runs them, who stops them, and the record of it all."""
