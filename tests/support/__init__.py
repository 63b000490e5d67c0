# SPDX-License-Identifier: BSD-3-Clause
"""What the tests that drive real processes share; see tests/conftest.py."""
