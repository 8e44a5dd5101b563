"""What a trial does: data, model and the training loop. Nothing here knows of the sweep; one file knows of Ray."""
