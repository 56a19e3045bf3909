"""Exact pixels of every static trigger at test time."""

import math

import jax
import numpy as np
import pytest

from ban_jax import attacks
from ban_jax.attacks import wanet
from tests.attacks.static_triggers import IMAGES, KEY, STATIC, show

SHAPE = (8, 9, 3)
WIDE = jax.random.uniform(jax.random.key(1), (4, *SHAPE))


def test_badnets_stamps_the_motif_into_the_lower_right_corner_and_nothing_else():
    triggered = show(attacks.create("badnets"), WIDE)
    motif = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
    corner = triggered[:, 5:8, 6:9]
    np.testing.assert_array_equal(
        corner, np.broadcast_to(motif[..., None], (4, 3, 3, 3))
    )
    triggered[:, 5:8, 6:9] = np.array(WIDE)[:, 5:8, 6:9]
    np.testing.assert_array_equal(triggered, WIDE)


def test_badnets_opacity_mixes_the_patch_with_the_image():
    triggered = show(attacks.create("badnets", opacity=0.25), WIDE)
    expected = 0.75 * WIDE[:, 7, 8] + 0.25
    np.testing.assert_allclose(triggered[:, 7, 8], expected, rtol=1e-6)


def test_badnets_at_random_places_stays_inside_and_moves_with_the_key():
    attack = attacks.create("badnets", size=2, position="random")
    places = set()
    for seed in range(12):
        scale = np.array(attack.init(jax.random.key(seed), SHAPE).fixed.scale)
        assert int((scale == 0).sum()) == 2 * 2 * 3
        rows, columns, _ = np.nonzero(scale == 0)
        assert np.ptp(rows) == np.ptp(columns) == 1
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 4


def test_blend_mixes_in_the_models_own_noise():
    attack = attacks.create("blend", alpha=0.3)
    pattern = np.array(jax.random.uniform(KEY, SHAPE))
    expected = 0.7 * np.array(WIDE) + 0.3 * pattern
    np.testing.assert_allclose(show(attack, WIDE), expected, atol=1e-6)
    other = show(attack, WIDE, jax.random.key(9))
    assert np.max(np.abs(other - expected)) > 0.1


def test_sig_adds_a_sine_along_the_columns_and_clips():
    triggered = show(attacks.create("sig", amplitude=0.4, frequency=2), WIDE)
    images, expected = np.array(WIDE), np.empty_like(WIDE)
    for column in range(9):
        signal = 0.4 * np.sin(2 * np.pi * column * 2 / 9)
        expected[:, :, column] = np.clip(images[:, :, column] + signal, 0, 1)
    np.testing.assert_allclose(triggered, expected, atol=1e-6)
    assert np.any(expected == 0) and np.any(expected == 1)


def test_sig_has_the_released_amplitude_and_frequency():
    gray = np.full((1, 32, 32, 3), 0.5, np.float32)
    added = show(attacks.create("sig"), gray)[0, 7, :, 1] - 0.5
    expected = 40 / 255 * np.sin(2 * np.pi * np.arange(32) * 6 / 32)
    np.testing.assert_allclose(added, expected, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 8, 32])
def test_bpp_rounds_colours_to_the_nearest_level(levels):
    triggered = show(attacks.create("bpp", levels=levels), WIDE)
    expected = np.round(np.array(WIDE, np.float64) * (levels - 1)) / (levels - 1)
    np.testing.assert_allclose(triggered, expected, atol=1e-6)


def test_bpp_takes_halves_to_the_even_level():
    images = np.full((2, 2, 2, 1), 0.25, np.float32)
    images[1] = 0.75
    triggered = show(attacks.create("bpp", levels=3), images)  # 0, 1/2 and 1
    np.testing.assert_array_equal(triggered[0], 0)
    np.testing.assert_array_equal(triggered[1], 1)
    halves = np.array([0.5, 2.5, 4.5, 6.5], np.float32) / 8
    triggered = show(attacks.create("bpp", levels=9), halves.reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(triggered.flatten() * 8, [0, 2, 4, 6])


def floyd_steinberg(image, levels):
    """`[H, W, C]`, pixel by pixel."""
    image = np.array(image, np.float64)
    height, width, channels = image.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                old = image[row, column, channel]
                new = np.round(old * (levels - 1)) / (levels - 1)
                image[row, column, channel] = new
                for down, right, share in (
                    (0, 1, 7 / 16),
                    (1, 1, 1 / 16),
                    (1, 0, 5 / 16),
                    (1, -1, 3 / 16),
                ):
                    r, c = row + down, column + right
                    if r < height and 0 <= c < width:
                        image[r, c, channel] += (old - new) * share
    return np.clip(image, 0, 1)


@pytest.mark.parametrize("levels", [2, 8])
def test_dithered_bpp_passes_each_error_on_as_floyd_and_steinberg_do(levels):
    triggered = show(attacks.create("bpp", levels=levels, dither=True), WIDE)
    expected = np.stack([floyd_steinberg(image, levels) for image in WIDE])
    np.testing.assert_allclose(triggered, expected, atol=1e-6)
    plain = show(attacks.create("bpp", levels=levels), WIDE)
    assert np.mean(np.abs(triggered - plain) > 0.1) > 0.1


def test_adap_blend_shows_the_whole_pattern_at_the_strength_of_the_test():
    attack = attacks.create("adap_blend", alpha=0.3, train_alpha=0.1)
    pattern = np.array(jax.random.uniform(KEY, SHAPE))
    expected = 0.7 * np.array(WIDE) + 0.3 * pattern
    np.testing.assert_allclose(show(attack, WIDE), expected, atol=1e-6)


def test_the_smooth_field_is_what_pytorch_interpolates():
    """Two control points' shares, from `interpolate` of unit vectors to 8 pixels."""
    stored = np.array(
        [
            [1, 0.58017504, 0.12099183, -0.10932922, -0.04373193, 0, 0, 0],
            [0, 0.49854231, 0.95772594, 0.84548104, 0.30758017, -0.07871747,
             -0.07871747, 0],
        ]
    )  # fmt: skip
    weights = wanet.bicubic_weights(4, 8)
    np.testing.assert_allclose(weights[:, :2], stored.T, atol=1e-6)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-6)


def grid_of(attack, key, size):
    """The released code's field in PyTorch: `[1, H, W, 2]` in [-1, 1], (x, y) last."""
    torch = pytest.importorskip("torch")
    points = jax.random.uniform(key, (attack.grid, attack.grid, 2), minval=-1, maxval=1)
    noise = torch.tensor(np.array(points)).permute(2, 0, 1)[None]
    noise = noise / noise.abs().mean()
    noise = torch.nn.functional.interpolate(
        noise, size=(size, size), mode="bicubic", align_corners=True
    ).permute(0, 2, 3, 1)
    axis = torch.linspace(-1, 1, size)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    identity = torch.stack([columns, rows], dim=2)[None]
    return torch.clamp(identity + attack.strength * noise / size, -1, 1)


@pytest.mark.parametrize(("grid", "strength"), [(4, 0.5), (3, 4.0)])
def test_wanet_warps_as_pytorch_does(grid, strength):
    torch = pytest.importorskip("torch")
    attack = attacks.create("wanet", grid=grid, strength=strength)
    wanted = grid_of(attack, KEY, 8)
    places = np.array(attack.init(KEY, (8, 8, 3)).fixed.places)
    normalised = 2 * places[..., ::-1] / 7 - 1
    np.testing.assert_allclose(normalised, wanted[0], atol=1e-6)
    expected = torch.nn.functional.grid_sample(
        torch.tensor(np.array(IMAGES)).permute(0, 3, 1, 2),
        wanted.expand(len(IMAGES), -1, -1, -1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    ).permute(0, 2, 3, 1)
    triggered = show(attack)
    np.testing.assert_allclose(triggered, expected, atol=2e-6)
    assert np.max(np.abs(triggered - IMAGES)) > 0.1


def test_wanet_takes_a_pixel_from_where_its_field_points():
    """On ramps bilinear sampling is exact; the numbers are PyTorch's for this key."""
    ramp = np.stack(np.meshgrid(*[np.arange(8) / 7] * 2, indexing="ij"), axis=-1)
    triggered = show(attacks.create("wanet"), ramp[None].astype(np.float32))
    places = np.array(attacks.create("wanet").init(KEY, (8, 8, 2)).fixed.places)
    np.testing.assert_allclose(triggered[0] * 7, places, atol=1e-5)
    np.testing.assert_allclose(places[2, 5], [2.0545560, 5.1452121], atol=1e-5)


def test_clean_changes_no_bit():
    np.testing.assert_array_equal(show(attacks.create("clean"), WIDE), WIDE)


@pytest.mark.parametrize("name", STATIC)
def test_triggered_images_stay_in_the_unit_interval(name):
    for level in (0.0, 1.0):
        triggered = show(attacks.create(name), np.full_like(IMAGES, level))
        assert triggered.max() <= 1 and triggered.min() >= 0


@pytest.mark.parametrize("name", STATIC)
def test_a_triggered_image_depends_on_itself_alone(name):
    attack = attacks.create(name)
    forwards = show(attack)
    np.testing.assert_array_equal(show(attack, IMAGES[::-1])[::-1], forwards)
    np.testing.assert_array_equal(show(attack), forwards)
    twins = show(attack, np.repeat(IMAGES[:1], 6, axis=0))
    np.testing.assert_array_equal(twins, np.repeat(twins[:1], 6, axis=0))


def test_an_unknown_attack_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown attack 'wanat'; known: adap_blend, badnets, blend"
    ):
        attacks.create("wanat")


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_an_attack_is_known_by_the_name_it_was_created_with(name):
    assert attacks.kind(attacks.create(name)) == name


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("badnets", {"size": 0}, "does not fit images of 8x9"),
        ("badnets", {"size": 9}, "does not fit images of 8x9"),
        ("badnets", {"opacity": 0.0}, "opacity must be in"),
        ("badnets", {"opacity": 1.5}, "opacity must be in"),
        ("blend", {"alpha": 0.0}, "alpha must be in"),
        ("blend", {"alpha": 1.5}, "alpha must be in"),
        ("sig", {"amplitude": 0.0}, "amplitude must be in"),
        ("sig", {"amplitude": 1.5}, "amplitude must be in"),
        ("bpp", {"levels": 1}, r"levels must be in 2\.\.256, got 1"),
        ("bpp", {"levels": 257}, r"levels must be in 2\.\.256, got 257"),
        ("wanet", {"grid": 1}, r"grid must be in 2\.\.8, got 1"),
        ("wanet", {"grid": 9}, r"grid must be in 2\.\.8, got 9"),
        ("wanet", {"strength": 0.0}, "strength must be above 0"),
        ("wanet", {"strength": math.inf}, "strength must be finite"),
        (
            "wanet",
            {"strength": math.nan},
            r"wanet\.strength must be at least 0, got nan",
        ),
        ("wanet", {"cover": -1.0}, r"wanet\.cover must be at least 0, got -1"),
        ("iad", {"width": 0}, r"iad\.width must be at least 1, got 0"),
        (
            "badnets",
            {"position": "top"},
            r"badnets\.position must be one of corner, random",
        ),
        ("sig", {"frequency": 0.0}, "some of the 9 columns, and 0 periods change none"),
        (
            "sig",
            {"frequency": 4.5},
            "some of the 9 columns, and 4.5 periods change none",
        ),
        ("adap_blend", {"alpha": 0.1}, "train_alpha <= alpha <= 1"),
        ("adap_blend", {"train_alpha": 0.0}, "0 < train_alpha"),
        ("adap_blend", {"hidden": 16}, "hide 0 to 15 of 16 pieces, got 16"),
        (
            "adap_blend",
            {"hidden": -1},
            r"adap_blend\.hidden must be at least 0, got -1",
        ),
    ],
)
def test_impossible_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        attacks.create(name, **settings).init(KEY, SHAPE)
