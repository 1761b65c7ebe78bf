"""What test_properties.py has run: a property test that shows its examples."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.properties import given


@given(st.integers())
def test_shows(number: int) -> None:
    print("\nsaw", number)
