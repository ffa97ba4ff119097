"""Episodes: layout, errors, that they can be rebuilt, and the thread that samples ahead."""

import contextlib
import doctest
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchmeta import episodes
from scratchmeta.data import ImageDataset, Sinusoids
from scratchmeta.episodes import Episode, generator, nearest_neighbour, sample, stream


def dataset(classes=7, drawings=6, side=3, **options):
    """Images whose first two pixels are their class and their drawing."""
    images = np.random.default_rng(0).integers(
        0, 256, (classes, drawings, side, side, 1), dtype=np.uint8
    )
    images[:, :, 0, 0, 0] = np.arange(classes)[:, None]
    images[:, :, 0, 1, 0] = np.arange(drawings)
    return ImageDataset(images, [f"c{k}" for k in range(classes)], **options)


DATA = dataset()


@given(
    st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9)
)
def test_layout_against_loops(N, K, Q, T, index):
    episode = sample(DATA, N, K, Q, T, seed=3, index=index)
    classes, drawings = DATA.choose(generator(3, index), T, N, K + Q)
    assert [part.shape for part in episode] == [
        (T, N * K, 3, 3, 1),
        (T, N * K),
        (T, N * Q, 3, 3, 1),
        (T, N * Q),
    ]
    assert [part.dtype for part in episode] == [np.float32, np.int64, np.float32, np.int64]
    for t in range(T):
        for k in range(N):
            for i in range(K + Q):
                x, y = (
                    (episode.support_x[t, k * K + i], episode.support_y[t, k * K + i])
                    if i < K
                    else (episode.query_x[t, k * Q + i - K], episode.query_y[t, k * Q + i - K])
                )
                image = DATA.images[classes[t, k], drawings[t, k, i]]
                np.testing.assert_allclose(x, image / 255, rtol=1e-6)
                assert y == k


@given(
    st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9)
)
def test_classes_are_distinct_and_no_drawing_is_in_both(N, K, Q, T, seed):
    episode = sample(DATA, N, K, Q, T, seed=seed)
    for t in range(T):
        seen = {}
        pairs = zip(
            (*episode.support_x[t], *episode.query_x[t]),
            (*episode.support_y[t], *episode.query_y[t]),
            strict=True,
        )
        drawn = []
        for x, y in pairs:
            character, drawing = (int(v) for v in np.rint(x[0, :2, 0] * 255))
            assert seen.setdefault(int(y), character) == character
            drawn.append((character, drawing))
        assert len(set(seen.values())) == len(seen) == N
        assert len(set(drawn)) == len(drawn) == N * (K + Q)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "data",
    [dataset(rotations="class-episode", jitter=True), dataset(rotations="classes"), Sinusoids()],
    ids=repr,
)
def test_an_episode_depends_on_seed_and_index_alone(data):
    shape = (1, 2, 2, 3)
    wanted = sample(data, *shape, seed=5, index=11)
    sample(data, *shape, seed=5, index=10)
    assert equal(sample(data, *shape, seed=5, index=11), wanted)
    assert not equal(sample(data, *shape, seed=5, index=12), wanted)
    assert not equal(sample(data, *shape, seed=11, index=5), wanted)
    assert not equal(sample(data, *shape, seed=6, index=11), wanted)


def test_the_episodes_of_other_machines():
    """What was drawn when this was written; if it changes, old runs cannot be rebuilt."""
    classes, drawings = DATA.choose(generator(0, 0), 2, 3, 2)
    assert classes.tolist() == [[0, 2, 1], [3, 4, 0]]
    assert drawings.tolist() == [[[5, 0], [1, 0], [4, 1]], [[3, 2], [5, 4], [1, 0]]]
    assert generator(2**64 - 1, 1).random() == 0.654829510352994


def test_seed_and_index_have_64_bits():
    for seed, index in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64)):
        with pytest.raises(ValueError, match=r"0 to 2\*\*64 - 1 wanted, got"):
            sample(DATA, 2, 1, 1, seed=seed, index=index)


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ({"n_way": 0}, "n_way: at least 1 wanted, got 0"),
        ({"k_shot": 0}, "k_shot: at least 1 wanted, got 0"),
        ({"n_query": -1}, "n_query: at least 1 wanted, got -1"),
        ({"tasks": 0}, "tasks: at least 1 wanted, got 0"),
        ({"n_way": 8}, r"n_way: at most the 7 classes of ImageDataset\(7 .* wanted, got 8"),
        ({"k_shot": 5}, r"k_shot \+ n_query: at most the 6 drawings .* wanted, got 5 \+ 2"),
    ],
)
def test_counts_that_cannot_be(counts, match):
    with pytest.raises(ValueError, match=match):
        sample(DATA, **{"n_way": 2, "k_shot": 1, "n_query": 2, "tasks": 1} | counts)


def test_a_count_that_is_no_integer():
    with pytest.raises(TypeError):
        sample(DATA, n_way=2.0, n_query=2)


# stream

SHAPE = {"n_way": 3, "k_shot": 1, "n_query": 2, "tasks": 2, "seed": 4}


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("episodes")]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
def test_stream_yields_the_episodes_in_order(prefetch):
    got = list(stream(DATA, **SHAPE, start=5, stop=25, prefetch=prefetch))
    assert len(got) == 20
    for index, episode in enumerate(got, 5):
        assert equal(episode, sample(DATA, **SHAPE, index=index))
    assert not threads()


def test_stream_without_end_and_closed_early():
    with contextlib.closing(stream(DATA, **SHAPE, start=3)) as endless:
        for index in range(3, 8):
            assert equal(next(endless), sample(DATA, **SHAPE, index=index))
        assert threads()
    assert not threads()


def test_stream_of_nothing():
    assert list(stream(DATA, **SHAPE, start=5, stop=5)) == []


class Recorder:
    """A dataset that remembers in which threads it was asked, and fails after so many episodes."""

    n_classes, n_drawings = DATA.n_classes, DATA.n_drawings

    def __init__(self, fails_after=1000):
        self.threads = []
        self.fails_after = fails_after

    def draw(self, *arguments):
        self.threads.append(threading.current_thread())
        if len(self.threads) > self.fails_after:
            raise RuntimeError("the disk is gone")
        return DATA.draw(*arguments)


def test_stream_samples_ahead_in_one_other_thread():
    data = Recorder()
    with contextlib.closing(stream(data, **SHAPE, prefetch=3)) as ahead:
        next(ahead)
        next(ahead)
        # two handed out, three more on their way or ready
        assert 2 <= len(data.threads) <= 5
    assert len(set(data.threads)) == 1
    assert data.threads[0] is not threading.current_thread()


def test_stream_raises_an_error_where_its_episode_would_have_come():
    failing = stream(Recorder(fails_after=4), **SHAPE, prefetch=3)
    for _ in range(4):
        next(failing)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(failing)
    assert not threads()
    with pytest.raises(StopIteration):
        next(failing)


def test_stream_refuses_bad_counts_like_sample():
    with pytest.raises(ValueError, match="n_way: at most the 7 classes"):
        next(stream(DATA, n_way=8))
    with pytest.raises(ValueError, match="prefetch: at least 0 wanted, got -1"):
        next(stream(DATA, prefetch=-1))


# nearest neighbour


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)
)
def test_nearest_neighbour_against_loops(N, K, Q, T, index):
    episode = sample(DATA, N, K, Q, T, index=index)
    got = nearest_neighbour(episode)
    assert got.shape == episode.query_y.shape
    for t in range(T):
        for q in range(N * Q):
            distances = [
                sum(
                    (a - b) ** 2
                    for a, b in zip(s.ravel(), episode.query_x[t, q].ravel(), strict=True)
                )
                for s in episode.support_x[t].astype(float)
            ]
            # within rounding the nearest
            nearest = [
                label
                for label, distance in zip(episode.support_y[t], distances, strict=True)
                if distance <= min(distances) + 1e-5
            ]
            assert got[t, q] in nearest


def test_nearest_neighbour_of_equals_is_the_first():
    same = np.ones((1, 4, 2, 2, 1), np.float32)
    labels = np.array([[2, 0, 1, 3]])
    assert nearest_neighbour(Episode(same, labels, same, labels)).tolist() == [[2, 2, 2, 2]]


def test_the_module_needs_neither_engine_nor_backend():
    code = (
        "import sys; sys.modules['scratchmeta'] = type(sys)('scratchmeta'); "
        f"sys.modules['scratchmeta'].__path__ = {episodes.__spec__.origin!r}.rsplit('/', 1)[:1]; "
        "import scratchmeta.episodes, scratchmeta.data; "
        "print([m for m in sys.modules if m.startswith('scratchmeta.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "episodes" in out.stdout
    for name in ("core", "backend", "ops"):
        assert f"scratchmeta.{name}" not in out.stdout


def test_the_examples_of_the_docstrings():
    failed, attempted = doctest.testmod(episodes)
    assert attempted > 0
    assert failed == 0
