"""What every error of rtsr is, wherever it was raised."""

from __future__ import annotations

import inspect
import pickle

import pytest

from rtsr import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.RtsrError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_come_whole_out_of_another_process(kind: type[errors.RtsrError]) -> None:
    """A pool of processes pickles what a worker raises."""
    if kind is errors.MissingDependencyError:
        error: errors.RtsrError = kind("Running a model", ("cpu", "gpu"))
    else:
        error = kind("This is a sentence.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
