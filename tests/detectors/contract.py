"""What every detector promises, one check each; `test_contract.py` runs them all.

A check takes a `Subject` and asserts. A new detector is under them as soon as it is in
`detectors.DETECTORS`; nothing has to be written here, unless it has an `epsilon` and its
noiseless answer is more than the answer after no steps (`NOISELESS`).
"""

import dataclasses
import functools

import chex
import jax
import numpy as np
from flax import traverse_util
from jax import export
from jax import numpy as jnp

from ban_jax import detectors
from ban_jax.detectors import by_class
from tests import tiny

UNITS = {"share", "difference", "number"}
BASELINES = {"within", "trusted", "population"}
"""A rule may have a threshold for `profile` besides; else that of `trusted` counts."""

NOISELESS = {
    "targeted": lambda found: (found.vectors["targeted"], found.vectors["batch"]),
    "ban": lambda found: (
        [found.vectors[name] for name in ("untargeted", "untargeted_masked")],
        [np.zeros(tiny.CLASSES, np.float32)] * 2,
    ),
    "reference": lambda found: (
        found.info["histogram"],
        found.info["histogram_without_noise"],
    ),
}
"""Mode -> from evidence to what noise drives, and the same without noise."""


def smallest(settings: type):
    """Settings with counts so small that a program is compiled and run at once."""
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings(), field.name)
        if isinstance(value, int) and not isinstance(value, bool):
            most = 8 if field.name == "batch_size" else 2
            changes[field.name] = min(value, most)
    return settings(**changes)


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""How a program is compiled that trains a network of its own: in a third of the time."""


class Subject:
    """A detector at its smallest settings on the four-line network.

    One that looks at classes it is told of is told `classes`, if any.
    """

    def __init__(self, name, detector, classes=None):
        self.name = name
        self.detector = detector
        self.classes = classes
        self.settings = smallest(detector.settings)
        self.fields = {field.name for field in dataclasses.fields(self.settings)}
        self._jitted = self.compiled(self.detect)

    def compiled(self, function):
        """`jax.jit` of a function that measures."""
        trains = "width" in self.fields
        return jax.jit(function, compiler_options=QUICK if trains else None)

    @property
    def looked_at(self):
        """Classes that vectors have numbers for."""
        return sorted(range(tiny.CLASSES) if self.classes is None else self.classes)

    def detect(self, variables, probe, key, config):
        told = {} if self.classes is None else {"classes": jnp.array(self.classes)}
        return self.detector.detect(
            tiny.NETWORK, variables, probe, key=key, config=config, **told
        )

    def probe(self, minibatches=2):
        """None for a detector that says it needs no images.

        For one that trains a network, images of 2x2 pixels: a U-Net of more than one
        block takes many times as long to compile, and has tests of its own.
        """
        if not self.detector.needs:
            return None
        whole = tiny.probe(minibatches)
        if "width" in self.fields:
            return whole._replace(images=whole.images[:, :, :2, :2])
        return whole

    def measure(self, variables=None, *, seed=0, minibatches=2, **changes):
        """Evidence of one model, on the host."""
        settings = dataclasses.replace(self.settings, **changes)
        variables = tiny.variables() if variables is None else variables
        found = self._jitted(
            variables, self.probe(minibatches), jax.random.key(seed), settings
        )
        return jax.device_get(found)

    @functools.cached_property
    def evidence(self):
        return self.measure()

    @functools.cached_property
    def anew(self):
        """The same traced another time, and not a third."""
        return self.compiled(chex.assert_max_traces(self.detect, n=1))

    @functools.cached_property
    def for_tpus(self):
        """Its program for TPUs, and the weights as they were before and after tracing."""
        variables = jax.tree.map(np.array, tiny.variables())
        before = jax.tree.map(np.array, variables)
        probe = self.probe()  # not traced, as the weights: they could be written to

        def measured(key):
            return self.detect(variables, probe, key, self.settings)

        program = export.export(jax.jit(measured), platforms=["tpu"])(jax.random.key(0))
        return program, before, variables

    def floats(self):
        """Names of the fields that hold numbers with a point, or several of them."""
        found = []
        for name in sorted(self.fields):
            value = getattr(self.settings, name)
            first = value[0] if isinstance(value, tuple) and value else value
            if isinstance(first, float):
                found.append(name)
        return found


def vectors_and_errors_have_one_entry_per_class_and_the_same_names(subject):
    found = subject.evidence
    assert set(found.vectors) == set(found.errors) and found.vectors
    for values in (*found.vectors.values(), *found.errors.values()):
        assert values.shape == (tiny.CLASSES,)
        assert np.issubdtype(values.dtype, np.floating)
    assert np.shape(found.clean_accuracy) == np.shape(found.is_finite) == ()
    for pictures in found.images.values():
        assert pictures.shape[0] == tiny.CLASSES and pictures.ndim == 4
        assert 0 <= np.min(pictures) and np.max(pictures) <= 1


def every_vector_has_words_and_those_that_decide_are_there(subject):
    words, found = subject.detector.vectors, set(subject.evidence.vectors)
    rule, more = subject.detector.rule, set()
    if subject.detector.further is not None:
        more = set(detectors.DETECTORS[subject.detector.further].vectors)
    assert set(rule.needed) <= set(rule.vectors)
    assert set(rule.needed) <= found and set(rule.vectors) <= found | more
    assert found <= set(words) and set(rule.vectors) <= set(words)
    for one in words.values():
        assert one.title and one.meaning and one.unit in UNITS


def evidence_of_a_sound_network_is_finite(subject):
    found = subject.evidence
    for values in found.vectors.values():
        assert np.flatnonzero(np.isfinite(values)).tolist() == subject.looked_at
    for error in found.errors.values():
        assert np.all(np.isfinite(error)) and np.all(error >= 0)
    assert bool(found.is_finite)
    accuracy = float(found.clean_accuracy)
    if {"images", "classes"} & subject.detector.needs == {"images"}:
        assert 0 <= accuracy <= 1
    else:
        assert np.isnan(accuracy)  # nothing was predicted of images as they are


def classes_that_it_is_told_get_what_they_get_among_all(subject):
    if subject.classes is None:
        return
    assert "classes" in subject.detector.needs
    told = subject.looked_at
    among = Subject(subject.name, subject.detector).evidence
    backwards = Subject(subject.name, subject.detector, subject.classes[::-1]).evidence
    for part in ("vectors", "errors"):
        for name, values in getattr(subject.evidence, part).items():
            whole = getattr(among, part)[name]
            np.testing.assert_allclose(values[told], whole[told], atol=1e-5)
            np.testing.assert_allclose(values, getattr(backwards, part)[name], 1e-5)


def what_looks_closer_is_known_and_tells_what_the_rule_lacks(subject):
    if subject.detector.further is None:
        return
    further = detectors.DETECTORS[subject.detector.further]
    assert {"images", "labels", "classes", "vectors"} == further.needs
    assert further.further is None
    # A vector of both would take the place of what the first look gave.
    assert not set(further.vectors) & set(subject.evidence.vectors)
    lacking = set(subject.detector.rule.vectors) - set(subject.evidence.vectors)
    assert lacking == set(further.rule.needed)
    assert callable(subject.detector.rule.asks)
    for name in further.vectors:
        assert subject.detector.vectors[name] == further.vectors[name]


def one_nan_among_the_weights_is_flagged(subject):
    paths = traverse_util.flatten_dict(tiny.variables()["params"])
    if not subject.detector.needs:  # it need not look at more than the last layer
        paths = [("linear", "kernel")]
    for path in paths:
        variables = tiny.variables()
        layer = variables["params"][path[0]]
        first = (0,) * layer[path[1]].ndim
        layer[path[1]] = layer[path[1]].at[first].set(jnp.nan)
        assert not bool(subject.measure(variables).is_finite), path


def it_can_be_traced_where_64_bits_are_on(subject):
    given = tiny.variables(), subject.probe(), jax.random.key(0), subject.settings
    with jax.enable_x64(True):
        jax.eval_shape(subject.detect, *given)


def stacked_networks_get_what_each_gets_alone(subject):
    population = [tiny.variables(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *population)
    keys = jax.random.split(jax.random.key(5), 2)
    together = subject.compiled(jax.vmap(subject.detect, in_axes=(0, None, 0, None)))(
        stacked, subject.probe(), keys, subject.settings
    )
    for index, variables in enumerate(population):
        alone = subject._jitted(
            variables, subject.probe(), keys[index], subject.settings
        )
        among = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        # Steps of a network in training enlarge what the order of a sum rounds.
        off = 1e-3 if "width" in subject.fields else 1e-4
        chex.assert_trees_all_close(among, alone, rtol=1e-4, atol=off)


def classes_that_are_searched_apart_get_what_they_get_together(subject):
    detect = subject.detector.detect
    # Those that train networks go the same way, and take a minute to compile.
    if not isinstance(detect, by_class.ByClass) or "width" in subject.fields:
        return
    rest = {"key": jax.random.key(0), "config": subject.settings}
    model = (tiny.NETWORK, tiny.variables(), subject.probe())
    search = subject.compiled(lambda one: detect.search(*model, one, **rest))
    found = [search(jnp.array([one])) for one in reversed(range(tiny.CLASSES))]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *reversed(found))
    evidence = subject.compiled(lambda found: detect.finish(*model, found, **rest))
    chex.assert_trees_all_close(
        jax.device_get(evidence(joined)), subject.evidence, rtol=1e-4, atol=1e-4
    )


def new_floats_and_a_new_seed_compile_nothing(subject):
    def run(settings, seed):
        return subject.anew(
            tiny.variables(), subject.probe(), jax.random.key(seed), settings
        )

    run(subject.settings, 0)
    for seed, name in enumerate(subject.floats(), 1):
        value = getattr(subject.settings, name)
        other = tuple(v / 3 for v in value) if isinstance(value, tuple) else value / 3
        run(dataclasses.replace(subject.settings, **{name: other}), seed)
    run(subject.settings, 99)


def it_lowers_for_tpus(subject):
    program, _, _ = subject.for_tpus
    assert program.platforms == ("tpu",)


def the_key_decides_everything(subject):
    again = subject.anew(  # no draw may hide in the tracing
        tiny.variables(), subject.probe(), jax.random.key(0), subject.settings
    )
    chex.assert_trees_all_equal(subject.evidence, jax.device_get(again))
    if "start" in subject.fields:
        one, other = (subject.measure(seed=seed, start=1.0).vectors for seed in (1, 2))
        deciding = subject.detector.rule.vectors
        assert any(not np.array_equal(one[name], other[name]) for name in deciding)


def inputs_are_unchanged(subject):
    _, before, after = subject.for_tpus
    chex.assert_trees_all_equal(before, after)


def noise_of_radius_zero_or_of_no_steps_gives_exactly_the_noiseless_answer(subject):
    if "epsilon" not in subject.fields:
        return
    nothing = [{"epsilon": 0.0}]
    if "start" in subject.fields:
        nothing.append({"epsilon": 0.0, "start": 1.0})
        if "steps" in subject.fields:
            nothing.append({"steps": 0, "start": 0.0})
    for changes in nothing:
        found = subject.measure(minibatches=1, **changes)
        if subject.name in NOISELESS:
            chex.assert_trees_all_equal(*NOISELESS[subject.name](found))
        elif "steps" in subject.fields:
            still = subject.measure(minibatches=1, epsilon=0.0, steps=0)
            chex.assert_trees_all_equal(found, still)


def work_grows_with_images_classes_and_steps(subject):
    work, settings = subject.detector.work, subject.settings
    by_images = [work(settings, 10, count) for count in (32, 128, 256, 512, 1024)]
    by_classes = [work(settings, count, 512) for count in (2, 10, 43, 200)]
    if not subject.detector.needs:
        assert len(set(by_images)) == 1 and by_classes == sorted(by_classes)
        return
    assert by_images[0] > 0 and by_classes == sorted(by_classes)
    if "classes" in subject.detector.needs:  # two minibatches, however many there are
        assert by_images == sorted(by_images) and by_images[0] < by_images[1]
        assert by_classes == [by_classes[0] / 2 * count for count in (2, 10, 43, 200)]
    else:
        assert by_images == sorted(set(by_images))
    if "steps" in subject.fields:
        more = dataclasses.replace(settings, steps=settings.steps + 1)
        assert work(more, 10, 512) > work(settings, 10, 512)


def its_rule_has_a_threshold_for_every_baseline(subject):
    rule = subject.detector.rule
    assert BASELINES <= set(rule.thresholds) <= {*BASELINES, "profile"}
    assert all(value > 0 for value in rule.thresholds.values())
    assert set(rule.suspicious) <= set(rule.thresholds)
    for kind, value in rule.suspicious.items():
        assert 0 < value < rule.thresholds[kind]
    assert isinstance(rule.pools, bool)


def its_settings_are_frozen_known_to_jax_and_complete(subject):
    kind = subject.detector.settings
    settings = kind()
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    leaves, structure = jax.tree.flatten(settings)
    assert jax.tree.unflatten(structure, leaves) == settings
    assert not any(leaf is settings for leaf in leaves)
    # Numbers with a point are traced, counts and switches are not.
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert all(field.name in (kind.__doc__ or "") for field in dataclasses.fields(kind))


def its_summary_is_one_sentence_without_a_full_stop(subject):
    summary = subject.detector.summary
    assert summary.strip() == summary and len(summary.split()) >= 3
    assert not summary.endswith(".") and ". " not in summary and "\n" not in summary


CHECKS = (
    vectors_and_errors_have_one_entry_per_class_and_the_same_names,
    every_vector_has_words_and_those_that_decide_are_there,
    evidence_of_a_sound_network_is_finite,
    classes_that_it_is_told_get_what_they_get_among_all,
    what_looks_closer_is_known_and_tells_what_the_rule_lacks,
    one_nan_among_the_weights_is_flagged,
    it_can_be_traced_where_64_bits_are_on,
    stacked_networks_get_what_each_gets_alone,
    classes_that_are_searched_apart_get_what_they_get_together,
    new_floats_and_a_new_seed_compile_nothing,
    it_lowers_for_tpus,
    the_key_decides_everything,
    inputs_are_unchanged,
    noise_of_radius_zero_or_of_no_steps_gives_exactly_the_noiseless_answer,
    work_grows_with_images_classes_and_steps,
    its_rule_has_a_threshold_for_every_baseline,
    its_settings_are_frozen_known_to_jax_and_complete,
    its_summary_is_one_sentence_without_a_full_stop,
)
