"""Weights are read when they are needed, and once."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from opensora_comfy.training.data.footage.measures.weights import Lazy, digest_of

MADE = []


def slowly(name):
    time.sleep(0.05)
    MADE.append(name)
    return [name]


def test_threads_share_what_one_of_them_makes():
    MADE.clear()
    lazy = Lazy(slowly, "clip")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: lazy(), range(8)))
    assert MADE == ["clip"] and all(one is found[0] for one in found)
    copy = pickle.loads(pickle.dumps(lazy))
    assert MADE == ["clip"] and copy() == ["clip"] and copy() is not lazy() and len(MADE) == 2


def test_what_fails_may_succeed_later(tmp_path):
    def read():
        return (tmp_path / "weights").read_text()

    lazy = Lazy(read)
    with pytest.raises(FileNotFoundError):
        lazy()
    (tmp_path / "weights").write_text("here")
    assert lazy() == "here"


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"others")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b") and len(digest_of(tmp_path / "a")) == 64
    with pytest.raises(
        ValueError, match=r"c: it cannot be read \(No such file or directory\); choose a file of weights"
    ):
        digest_of(tmp_path / "c")
