"""Every public function and method is annotated; .ci/docs checks that they fit."""

from tests.support.annotations import missing
from tests.support.command import ROOT


def test_public_functions_are_annotated():
    bare, total = missing(ROOT)
    assert total > 700 and not bare
