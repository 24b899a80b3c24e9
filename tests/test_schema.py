import pytest
from hydra import compose, initialize_config_dir

from negrec import schema
from negrec.commandline.configuration import conf_dir
from negrec.errors import InputError


def check(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        schema.check(compose("train", list(overrides)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["k=abc"], "sampler.k must be a whole number, got abc"),
        (["k=1.5"], "sampler.k must be a whole number, got 1.5"),
        (["k=all"], "sampler.k must be a whole number, got all"),
        (["sampler=in_batch", "k=some"], "sampler.k must be a whole number or all, got some"),
        (["loss=gbce", "t=high"], "loss.t must be a number, got high"),
        (["sampler=genni", "alpha=hot"], "sampler.alpha must be a number, got hot"),
        (["sampler=genni", "curriculum=3"], "sampler.curriculum must be true or false, got 3"),
        (["sampler=cross_batch", "size=x"], "sampler.size must be a whole number, got x"),
        (["sampler=mixed", "sampler.parts.uniform.k=x"], "sampler.parts.uniform.k must be a whole"),
        (["scorer.bias=3"], "scorer.bias must be true or false, got 3"),
        (["diagnostics.gradient=maybe"], "diagnostics.gradient must be true or false, got maybe"),
    ],
)
def test_values_of_the_wrong_type_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        check(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["sampler=in_batch", "k=all"],
        ["sampler=genni", "alpha=2"],  # a whole number is a number
        ["sampler=genni", "sampler.grow=10"],
        ["trainer.threads=auto", "trainer.patience=null", "trainer.progress=false"],
        ["+experiment=ufnrec"],
        ["sampler/false_negatives=reverse", "mining_start=3"],
    ],
)
def test_values_of_the_right_type_are_not(overrides):
    check(*[word.removeprefix("+") for word in overrides])
