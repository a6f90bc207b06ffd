import dataclasses
import json

from dcae15.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    count=1000,
    reference_count=2000,
    reference_digest="a" * 64,
    extractor="feature network",
    extractor_digest="b" * 64,
    resize="none",
    solver="heun",
    steps=25,
    guidance=1.5,
    guidance_start=0.25,
    guidance_end=1.0,
    prefix=32,
    seed=7,
    ema_decay=0.998,
)


def test_survives_json():
    assert Protocol(**json.loads(json.dumps(PROTOCOL.to_dict()))) == PROTOCOL


def test_differences_name_the_fields():
    other = dataclasses.replace(PROTOCOL, steps=50, extractor_digest="c" * 64)
    assert PROTOCOL.differences(other) == ["extractor_digest", "steps"]
    assert PROTOCOL.differences(PROTOCOL) == []


def test_line_tells_every_field():
    line = PROTOCOL.line()
    assert "\n" not in line
    changes = {"resize": "299 bilinear", "extractor": "other", "solver": "euler"}
    for field in dataclasses.fields(Protocol):
        value = getattr(PROTOCOL, field.name)
        changed = changes.get(field.name, "c" * 64 if isinstance(value, str) else value / 2)
        assert dataclasses.replace(PROTOCOL, **{field.name: changed}).line() != line, field.name


def test_line_says_when_there_is_no_guidance_and_no_average():
    line = dataclasses.replace(PROTOCOL, guidance=1.0, ema_decay=0.0).line()
    assert "no guidance" in line
    assert "no EMA" in line
