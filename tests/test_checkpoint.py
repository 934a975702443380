"""Checkpoints: exact round trips, and damage that is found, told and stepped over."""

import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl import checkpoint

TREE = {
    "w": jax.random.normal(jax.random.key(1), (64, 32)),
    "half": jnp.ones((3, 2), jnp.bfloat16),
    "key": jax.random.split(jax.random.key(2, impl="rbg"), 2),
    "flag": jnp.array(True),
    "special": np.array([np.nan, -0.0, np.inf]),
    "empty": np.zeros((4, 0), np.int8),
    "nested": (np.int32(7), None, [jnp.arange(3)]),
}


# Orbax drops its event loop with the first of several reads that fail; the others complain.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def bits(tree):
    def plain(a):
        if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
            a = jax.random.key_data(a)
        a = np.asarray(a)
        return a.tobytes(), a.dtype, a.shape

    return [plain(a) for a in jax.tree.leaves(tree)], jax.tree.structure(tree)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint") / "run"
    for step in (1, 2, 3):
        checkpoint.save(directory, step, {**TREE, "nested": (np.int32(step), None, [1.5])})
    return directory


@pytest.fixture
def directory(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def like():
    return {**TREE, "nested": (np.int32(0), None, [1.5])}


def step_restored(directory):
    step, tree, _ = checkpoint.restore(directory, like())
    assert bits(tree) == bits({**TREE, "nested": (np.int32(step), None, [1.5])})
    return step


def files(directory, step):
    return [f for f in (directory / str(step)).rglob("*") if f.is_file()]


def largest(directory, step):
    return max(files(directory, step), key=lambda f: f.stat().st_size)


def test_a_round_trip_keeps_every_bit_dtype_key_and_the_meta(tmp_path):
    checkpoint.save(tmp_path / "new" / "run", 5, TREE, {"lr": 0.1, "names": ["a"]})
    step, tree, meta = checkpoint.restore(tmp_path / "new" / "run", TREE)
    assert step == 5 and meta == {"lr": 0.1, "names": ["a"]}
    assert bits(tree) == bits(TREE)
    draw = jax.vmap(jax.random.normal)
    np.testing.assert_array_equal(draw(tree["key"]), draw(TREE["key"]))


def test_shapes_alone_are_enough_to_restore(directory):
    shapes = {**like(), "w": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    step, tree, _ = checkpoint.restore(directory, shapes)
    np.testing.assert_array_equal(tree["w"], TREE["w"])
    assert step == 3 and isinstance(tree["w"], jax.Array)


def test_the_last_steps_are_kept_and_a_step_can_be_written_again(directory):
    assert sorted(int(p.name) for p in directory.iterdir()) == [2, 3]
    checkpoint.save(directory, 3, {"a": np.zeros(2)}, keep=1)
    assert [p.name for p in directory.iterdir()] == ["3"]
    np.testing.assert_array_equal(checkpoint.restore(directory, {"a": np.ones(2)})[1]["a"], 0)


def test_a_trace_of_a_length_that_only_the_file_knows_is_restored(tmp_path):
    checkpoint.save(tmp_path, 1, {"trace": np.arange(17.0)}, {"length": 17})
    restored = checkpoint.restore(tmp_path, lambda meta: {"trace": np.zeros(meta["length"])})
    np.testing.assert_array_equal(restored[1]["trace"], np.arange(17.0))


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.restore(tmp_path / "nothing", TREE) is None
    assert checkpoint.restore(tmp_path, TREE) is None
    assert not (tmp_path / "nothing").exists()


def test_every_flipped_bit_of_the_arrays_is_harmless_or_found(directory):
    """One flip in each of 24 places over all files: never wrong numbers, never a crash.

    At least one flip must be found by our digest and not by orbax, else this proves
    nothing about it.
    """
    rng, by_digest = np.random.default_rng(0), 0
    targets = [largest(directory, 3)] * 8 + list(rng.permutation(files(directory, 3)))[:16]
    for file in targets:
        whole = file.read_bytes()
        if not whole:
            continue
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            step = step_restored(directory)
        said = " ".join(str(w.message) for w in told)
        # A flip in bytes that nobody reads (time stamps) goes without a word.
        assert step == (2 if "step 3" in said else 3)
        by_digest += "bytes of" in said
        file.write_bytes(whole)
    assert by_digest >= 1
    assert step_restored(directory) == 3


def test_a_truncated_file_is_found_and_the_step_before_is_used(directory):
    file = largest(directory, 3)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(UserWarning, match="step 3 .* cannot be used .*: trying the step"):
        assert step_restored(directory) == 2


def test_a_lost_file_is_found_and_the_step_before_is_used(directory):
    largest(directory, 3).unlink()
    with pytest.warns(UserWarning, match="step 3"):
        assert step_restored(directory) == 2


def test_an_edited_record_is_found(directory):
    record = directory / "3" / "record" / "metadata"
    edited = json.loads(record.read_text())
    edited["meta"]["lr"] = 0.5
    record.write_text(json.dumps(edited))
    with pytest.warns(UserWarning, match="record is damaged"):
        assert step_restored(directory) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"w": np.zeros((64, 32), np.float64)}, "w.* dtype float64, got .* float32"),
        ({"w": np.zeros((32, 64), np.float32)}, r"w.* shape \(32, 64\) .*, got \(64, 32\)"),
        ({"extra": np.zeros(1)}, "lacks .*extra"),
    ],
)
def test_another_dtype_shape_or_leaf_is_refused_not_cast(directory, change, sentence):
    with (
        pytest.warns(UserWarning, match=sentence),
        pytest.raises(ValueError, match=sentence + ".*; no earlier step is intact"),
    ):
        checkpoint.restore(directory, {**like(), **change})


def test_a_damaged_step_can_be_passed_and_written_again(directory):
    largest(directory, 3).unlink()
    with pytest.warns(UserWarning, match="step 3"):
        assert step_restored(directory) == 2
    checkpoint.save(directory, 3, {**like(), "nested": (np.int32(3), None, [1.5])})
    assert step_restored(directory) == 3


def test_a_digest_tells_bytes_dtypes_shapes_and_paths_apart():
    trees = [
        {"a": np.zeros(4, np.float32)},
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": -np.zeros(4, np.float32)},
        {"a": jax.random.key(0)},
        {"a": jax.random.key(1)},
    ]
    assert len({checkpoint.digest(t) for t in trees}) == len(trees)


def test_a_digest_of_a_program_tells_numbers_and_shapes_apart():
    def scaled(by):
        constant = jnp.full(3, by)
        return lambda x: jax.lax.scan(lambda c, _: (c * constant, None), x, None, length=4)[0]

    three, four = jax.ShapeDtypeStruct((3,), np.float32), jnp.ones((4, 3))
    programs = [(scaled(1.0), three), (scaled(2.0), three), (scaled(1.0), four)]
    programs += [(lambda x: x * 0.1, three), (lambda x: x * 0.1000001, three)]
    found = [checkpoint.digest_of_program(*p) for p in programs]
    assert len(set(found)) == len(programs)
    assert found[0] == checkpoint.digest_of_program(scaled(1.0), jnp.zeros(3))


def test_float64_is_not_cast_where_x64_is_off(tmp_path):
    with jax.enable_x64(True):
        checkpoint.save(tmp_path, 1, {"a": jnp.zeros(2, jnp.float64)})
        like = jax.eval_shape(lambda: {"a": jnp.zeros(2, jnp.float64)})
    with (
        pytest.warns(UserWarning, match="enable_x64"),
        pytest.raises(ValueError, match="enable_x64"),
    ):
        checkpoint.restore(tmp_path, like)
