"""Curves and colours."""

import numpy as np
import pytest

from server.image.srgb import TO_LINEAR, decode, encode, linear_to_srgb, srgb_to_linear
from server.light.lights import LUMINANCE, blackbody, hex_color, unit


def test_every_code_comes_back():
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(encode(decode(codes)), codes)
    assert decode(codes).dtype == np.float32


def test_against_the_standard():
    """IEC 61966-2-1, values computed by hand from its two branches."""
    assert srgb_to_linear(10 / 255) == pytest.approx(10 / 255 / 12.92)
    assert srgb_to_linear(0.5) == pytest.approx(((0.5 + 0.055) / 1.055) ** 2.4)
    assert TO_LINEAR[255] == 1 and TO_LINEAR[0] == 0
    assert linear_to_srgb(0.5) == pytest.approx(0.735357, abs=1e-6)


def test_encoding_anything():
    x = np.linspace(0, 1, 100_003, dtype=np.float32)[None]
    exact = 255 * linear_to_srgb(x)
    assert np.abs(encode(x) - exact).max() <= 0.61
    assert (np.diff(encode(x)[0].astype(int)) >= 0).all()
    assert encode(np.float32([[1.0, 1.2, 3.9]])).tolist() == [[255, 255, 255]]


def test_temperatures():
    assert np.allclose(blackbody(6500), 1, atol=1e-6)
    previous = None
    for kelvin in (1000, 1500, 2000, 2856, 4000, 5000, 6500, 8000, 12000, 20000, 40000):
        rgb = np.array(blackbody(kelvin))
        assert (rgb >= 0).all() and LUMINANCE @ rgb == pytest.approx(1)
        assert (rgb[0] > rgb[2]) == (kelvin < 6500)
        if previous is not None:
            assert rgb[2] / rgb[0] > previous or rgb[2] == previous == 0
        previous = rgb[2] / rgb[0]
    warm = np.array(blackbody(2856)) / max(blackbody(2856))  # incandescent light under a neutral of 6500 K
    assert warm[1] == pytest.approx(0.49, abs=0.06) and warm[2] == pytest.approx(0.12, abs=0.06)


def test_hex_colours():
    assert np.allclose(hex_color("#ffffff"), 1) and np.allclose(hex_color("#808080"), 1)
    red = hex_color("#FF0000")
    assert red[1] == red[2] == 0 and LUMINANCE @ np.array(red) == pytest.approx(1)
    for bad in ("#000000", "ffffff", "#fff", "#ggggga", "#ffffff0", ""):
        with pytest.raises(ValueError):
            hex_color(bad)


@pytest.mark.parametrize("v", [(1, 2, 3), (1e-300, 0, 0), (1e300, 1e300, 0), (-3e-200, 4e-200, 0)])
def test_unit(v):
    assert np.linalg.norm(unit(v)) == pytest.approx(1)


@pytest.mark.parametrize("v", [(0, 0, 0), (float("inf"), 0, 0)])
def test_no_direction(v):
    with pytest.raises(ValueError):
        unit(v)


def test_colours_are_linear_and_of_luminance_one():
    """IEC 61966-2-1 and the luminance of ITU-R BT.709, values computed by hand."""
    assert hex_color("#ff0000")[0] == pytest.approx(1 / 0.2126) and hex_color("#0000ff")[2] == pytest.approx(1 / 0.0722)
    r, g, b = hex_color("#ff8000")
    assert g / r == pytest.approx(((128 / 255 + 0.055) / 1.055) ** 2.4) and b == 0
