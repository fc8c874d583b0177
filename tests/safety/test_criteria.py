import numpy as np

from scc_tf.safety.criteria import class_probabilities, cluster, equal_draw, margin, pool_features

DISTRIBUTIONS = np.random.default_rng(0).dirichlet(np.ones(6), 200)


def test_the_margin_is_that_of_the_two_largest():
    ranked = [sorted(row, reverse=True) for row in DISTRIBUTIONS.tolist()]
    np.testing.assert_array_equal(margin(DISTRIBUTIONS), [row[0] - row[1] for row in ranked])


def test_sure_and_torn():
    np.testing.assert_array_equal(margin([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]), [1, 0])


def test_is_not_least_confidence():
    torn, clear = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0], [0.4, 0.12, 0.12, 0.12, 0.12, 0.12]
    assert np.argmin(margin([torn, clear])) == 0
    assert np.argmin(np.max([torn, clear], axis=1)) == 1


def test_logits_become_their_softmax_and_probabilities_stay():
    logits = np.log(DISTRIBUTIONS) + np.arange(200)[:, None] - 90
    np.testing.assert_allclose(class_probabilities(logits), DISTRIBUTIONS)
    np.testing.assert_array_equal(class_probabilities(DISTRIBUTIONS), DISTRIBUTIONS)


def test_huge_and_half_precision_logits():
    np.testing.assert_array_equal(class_probabilities([[1e4, 0.0], [-1e4, -1e4]]), [[1, 0], [0.5, 0.5]])
    assert class_probabilities(np.array([[9, -9]], np.float16)).dtype == np.float32


def blobs(sizes, dims=40):
    """Clouds far apart from each other, shuffled: points and the cloud of each."""
    rng = np.random.default_rng(0)
    cloud = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 100 * rng.normal(size=(len(sizes), dims))
    return (centres[cloud] + rng.normal(size=(len(cloud), dims))).astype(np.float32), cloud


def test_clouds_are_found_whatever_their_size():
    points, cloud = blobs([5, 50, 20, 100])
    clusters = cluster(points, n_clusters=4)
    assert len({*zip(clusters.tolist(), cloud.tolist(), strict=True)}) == 4


def test_equal_numbers_per_cluster():
    points, cloud = blobs([30, 300, 60, 90])
    indices = equal_draw(cluster(points, n_clusters=4), 40)
    assert np.bincount(cloud[indices]).tolist() == [10] * 4
    assert len(set(indices.tolist())) == 40


def test_small_clusters_hand_their_share_on():
    clusters = np.repeat([0, 1, 2, 3], [2, 50, 7, 50])
    assert np.bincount(clusters[equal_draw(clusters, 39)]).tolist() == [2, 15, 7, 15]
    assert np.bincount(clusters[equal_draw(clusters, 109)]).tolist() == [2, 50, 7, 50]


def test_uneven_counts_differ_by_one_and_favour_no_cluster():
    clusters = np.repeat(np.arange(5), 20)
    drawn = np.array([np.bincount(clusters[equal_draw(clusters, 7, seed)], minlength=5) for seed in range(200)])
    assert np.unique(drawn).tolist() == [1, 2]
    assert (np.abs(drawn.mean(axis=0) - 1.4) < 0.15).all()


def test_every_first_part_is_diverse():
    clusters = np.repeat(np.arange(5), 20)
    drawn = clusters[equal_draw(clusters, 50)]
    assert all(set(drawn[start : start + 5]) == set(range(5)) for start in range(0, 50, 5))


def test_members_are_drawn_evenly_not_the_nearest_first():
    times = sum(np.isin(np.arange(20), equal_draw(np.zeros(20, int), 5, seed)) for seed in range(400))
    assert times.min() > 60  # 100 expected
    assert times.max() < 140


def test_taken_examples_are_skipped():
    clusters = np.repeat([0, 1], 10)
    drawn = equal_draw(clusters, 8, taken=np.arange(3, 12))
    assert sorted(drawn[clusters[drawn] == 0].tolist()) == [0, 1, 2]
    assert drawn.min() >= 0
    assert not set(drawn.tolist()) & set(range(3, 12))


def test_the_seed_decides():
    points, _ = blobs([40, 40, 40])
    runs = [cluster(points, n_clusters=3, seed=seed) for seed in (0, 0)]
    np.testing.assert_array_equal(*runs)
    draws = [equal_draw(runs[0], 12, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_more_clusters_than_different_points():
    assert cluster(np.ones((6, 40)), n_components=3).tolist() == [0] * 6


def test_pooling_halves_until_the_features_are_few_enough():
    features = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(pool_features(features), features.reshape(2, -1))
    blocks = features.reshape(2, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(pool_features(features, 47), blocks.reshape(2, -1))
    np.testing.assert_allclose(pool_features(features, 3), features.mean(axis=(1, 2)))
    assert pool_features(np.ones((2, 1, 1, 9)), 4).shape == (2, 9)


def test_pooling_an_odd_size_counts_no_padding():
    np.testing.assert_allclose(pool_features(np.ones((1, 5, 3, 2)), 2), np.ones((1, 2)))
