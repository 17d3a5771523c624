"""Seeds that are the same on every machine."""

from opensora_comfy.training.data.draws import number_of, seed_of


def test_numbers_are_those_of_runs_that_have_begun():
    assert seed_of(0, 0, "a") == 9196027511977055662
    assert number_of("clip:0:shape") == int.from_bytes(bytes.fromhex("1ce98343893b4094"), "big")
    assert number_of("a", 64).bit_length() > 500
