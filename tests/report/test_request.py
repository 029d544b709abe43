"""What was asked for, in words."""

from dataclasses import replace

from cotune.api.experiment import NamespaceRef
from cotune.report.request import request
from support.played_experiment import Played
from support.told_report import experiment


def test_a_copied_stack_says_where_its_images_come_from(voice: Played) -> None:
    found = experiment(voice)
    stack = found.spec.stack.model_copy(update={"from_namespace": NamespaceRef(name="voice-prod")})

    said = request(replace(found, spec=found.spec.model_copy(update={"stack": stack})))

    assert {it.cells[2] for it in said.components} == {"copied from voice-prod"}
    assert "copied from voice-prod" not in {it.cells[2] for it in request(found).components}
