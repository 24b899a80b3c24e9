import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from negrec.identity import new_id


def test_an_id_is_read_as_text_wherever_it_is_typed():
    ids = [new_id() for _ in range(300)]
    assert len(set(ids)) == 300
    assert {len(name) for name in ids} == {8}
    assert [yaml.safe_load(name) for name in ids] == ids
    typed = OverridesParser.create().parse_overrides([f"init_from={name}" for name in ids])
    assert [override.value() for override in typed] == ids
