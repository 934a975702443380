"""Rows on disk come back whole, shuffled, and the same whenever they are asked for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import regression

import crl
from crl import files
from crl.files import stream_rows, verify_rows, write_rows

ROWS = np.arange(1003 * 3, dtype=np.float32).reshape(1003, 3)


def numbers(x):
    """Which of ROWS these are."""
    return (np.asarray(x)[..., 0].ravel() / 3).astype(int)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 1200)  # 100 rows, so that blocks straddle
    monkeypatch.setattr(files, "WINDOW_BYTES", 2000)  # 10 blocks of 16 rows
    monkeypatch.setattr(files, "EXAMPLE_ROWS", 64)
    assert write_rows(tmp_path / "rows", [ROWS[:501], ROWS[501:]]) == 1003
    assert len(list((tmp_path / "rows").glob("*.npy"))) == 11
    return tmp_path / "rows"


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(folder):
    read = stream_rows(folder, 0, block=16).read
    found = numbers(read(0, 2 * 59, 17).x)
    one, two = found[:1003], found[1003:2006]
    assert set(one) == set(two) == set(range(1003))
    assert (one != two).mean() > 0.9 and (np.abs(np.diff(one)) == 1).mean() < 0.05
    assert (one != numbers(stream_rows(folder, 1, block=16).read(0, 59, 17).x)).mean() > 0.9


def test_a_batch_depends_on_its_step_alone(folder):
    whole = stream_rows(folder, 0, block=16).read(0, 90, 17)
    assert whole.x.shape == (90, 17, 3) and whole.env.shape == (90, 17)
    np.testing.assert_array_equal(whole.given["count"], np.full((90, 1), 17))
    stream = stream_rows(folder, 0, block=16)
    for start in (50, 0, 83, 11):  # resumed, started again, ...
        np.testing.assert_array_equal(stream.read(start, 7, 17).x, whole.x[start : start + 7])


def test_held_rows_are_seen_by_no_step(folder):
    stream = stream_rows(folder, 0, block=16, held=20)
    held, seen = numbers(stream.example.held.x), numbers(stream.read(0, 120, 17).x)
    assert 20 <= len(held) <= 32 and len(stream.example.x) == 64
    assert not set(held) & set(seen) and not set(held) & set(numbers(stream.example.x))
    assert len(set(seen)) == 1003 - len(held)
    with pytest.raises(ValueError, match="leave rows to fit on, got 1003 of 1003"):
        stream_rows(folder, 0, block=16, held=1003)


def test_a_fit_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(folder, tmp_path):
    estimator, key = regression(20, lr=1e-8, batch_size=17), jax.random.key(0)
    whole = crl.fit(estimator, key, stream_rows(folder, 0, block=16), chunk_size=5)

    stream = stream_rows(folder, 0, block=16)

    def broken(start, num, size):
        if start >= 15:
            raise OSError("the disk is gone")
        return stream.read(start, num, size)

    options = dict(chunk_size=5, checkpoint=tmp_path / "checkpoint")
    with pytest.raises(OSError, match="gone"):
        crl.fit(estimator, key, stream._replace(read=broken), **options)
    resumed = crl.fit(estimator, key, stream_rows(folder, 0, block=16), **options)
    np.testing.assert_array_equal(resumed.state, whole.state)
    np.testing.assert_array_equal(resumed.trace["loss"], whole.trace["loss"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_float32(tmp_path, dtype):
    rows = np.random.default_rng(0).normal(size=(40, 2, 3)).astype(jnp.dtype(dtype))
    write_rows(tmp_path, [rows])
    x = stream_rows(tmp_path, 0).read(0, 1, 40).x[0]
    assert x.dtype == np.float32

    def in_order(a):
        return a.reshape(40, 6)[np.argsort(a[:, 0, 0])]

    np.testing.assert_array_equal(in_order(x), in_order(rows.astype(np.float32)))


def test_what_is_not_whole_is_refused(folder):
    shard = folder / "rows_00003.npy"
    whole = shard.read_bytes()
    verify_rows(folder)
    shard.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ValueError, match=r"rows_00003\.npy is not as it was written"):
        verify_rows(folder)
    shard.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=r"rows_00003\.npy.*cut off"):
        stream_rows(folder, 0)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": "crl-rows-9"}))
    with pytest.raises(ValueError, match="format crl-rows-1"):
        stream_rows(folder, 0)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"expected a manifest\.json"):
        stream_rows(folder, 0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "at least one row"),
        ([np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)], "alike"),
        ([np.ones((2, 3), np.float32), np.ones((2, 3))], "alike"),
        ([np.ones((2, 3), int)], "floating"),
        ([np.full((2, 3), np.nan)], "finite rows"),
    ],
)
def test_rows_that_cannot_be_written_are_named(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        write_rows(tmp_path, arrays)


def test_a_folder_is_written_once(folder):
    with pytest.raises(ValueError, match=r"has a manifest\.json"):
        write_rows(folder, [ROWS])
