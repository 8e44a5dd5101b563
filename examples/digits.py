"""A sweep from Python: digits, about half a minute on two cores. It works the same in a notebook.

python examples/digits.py
"""

from sklearn.datasets import load_digits

from orchestrator import sweep

if __name__ == "__main__":
    options = sweep.SweepOptions(
        "digits",
        quick=True,
        trials=4,
        set=("optimizer=sgd", "dropout=0.1"),
        search=("lr=log(0.02,1)",),
    )
    result = sweep.run(options)
    assert isinstance(result, sweep.SweepResult)  # not the plan that a dry run gives

    # a pandas DataFrame, a row a trial, the best first
    print(result.leaderboard[["rank", "trial", "status", "score", "config.lr"]].to_string(index=False))

    # what the confirmed winner reaches on the sealed test set
    assert result.winner is not None
    test = result.winner["test"]
    print(f"test accuracy {test['model_accuracy']:.3f} on {test['rows']} rows, 95 % interval {test['wilson']}")

    # the winner's model, with its preprocessing
    image = (load_digits().images[0] * (255 / 16)).astype("uint8")[..., None]
    print("this is a", result.model().predict([image]).labels[0])
