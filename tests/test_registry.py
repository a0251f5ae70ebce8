"""Loading plugins: a broken one is a line, a clash names both, one that is disabled stays out."""

from inspect import signature
from types import SimpleNamespace

import pytest

from fitplug import registry
from fitplug.entrypoints import EntryPoint
from fitplug.errors import NotFoundError, PluginError
from fitplug.extension import Export, Exporter, Later
from fitplug.hookspecs import hookimpl


class Point:
    """An entry point whose module is already there."""

    distribution, version = "toys", "1.0"

    def __init__(self, name, plugin):
        self.name, self.module, self.plugin = name, f"toys.{name}", plugin

    def load(self):
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


def plugin(name="koboldcpp", *more):
    @hookimpl
    def fitplug_exporters():
        for each in (name, *more):
            yield Exporter(name=each, help="a toy", render=lambda plan, request: Export(argv=("toy",)))

    return SimpleNamespace(fitplug_exporters=fitplug_exporters)


def statuses(*points):
    return {status.name: status for status in registry.load(points).plugins}


def test_what_a_plugin_yields_is_found_by_its_name():
    loaded = registry.load([Point("toy", plugin("koboldcpp", "tabby"))])

    assert loaded.exporter("tabby").name == "tabby"
    assert loaded.plugins[0].adds == ("exporter koboldcpp", "exporter tabby")
    assert loaded.plugins[0].problem is None


def test_a_plugin_that_does_not_import_is_a_line_and_the_others_stay():
    found = statuses(Point("bad", ImportError("no module named 'gone'")), Point("good", plugin()))

    assert found["bad"].problem == "ImportError: no module named 'gone'"
    assert found["good"].problem is None


def test_a_plugin_with_an_unknown_hook_is_left_out_whole():
    toy = plugin()
    toy.fitplug_telepathy = hookimpl(lambda: ())
    loaded = registry.load([Point("odd", toy)])

    assert "fitplug_telepathy" in loaded.plugins[0].problem
    assert loaded.exporters == ()


def test_a_hook_that_fails_halfway_adds_nothing_and_says_where():
    @hookimpl
    def fitplug_exporters():
        yield Exporter(name="first", help="", render=lambda plan, request: Export())
        raise ZeroDivisionError("in the middle")

    loaded = registry.load([Point("half", SimpleNamespace(fitplug_exporters=fitplug_exporters))])

    assert loaded.exporters == ()
    assert "ZeroDivisionError: in the middle (test_registry.py:" in loaded.plugins[0].problem


def test_two_plugins_with_one_name_are_both_named():
    with pytest.raises(PluginError, match=r"'one' and 'two' both register the exporter 'koboldcpp'.*FITPLUG_DISABLE=two"):
        registry.load([Point("one", plugin()), Point("two", plugin())])


def test_a_clash_can_be_solved_by_disabling_one(monkeypatch):
    monkeypatch.setenv("FITPLUG_DISABLE", "two,three")
    found = statuses(Point("one", plugin()), Point("two", plugin()))

    assert found["two"].problem == "disabled by FITPLUG_DISABLE"
    assert found["one"].adds


def test_an_unknown_name_lists_those_that_are_there():
    loaded = registry.load([Point("toy", plugin("b", "a"))])

    with pytest.raises(NotFoundError, match="no exporter 'c'; there is: a, b"):
        loaded.exporter("c")


def test_loading_twice_leaves_nothing_behind():
    first = registry.load([Point("toy", plugin())])
    second = registry.load([])

    assert len(first.exporters) == 1
    assert second.exporters == ()


def test_a_plugin_sees_none_of_the_others():
    points = [Point("a", plugin("x")), Point("b", plugin("y"))]
    found = {status.name: status.adds for status in registry.load(points).plugins}

    assert found == {"a": ("exporter x",), "b": ("exporter y",)}


def test_an_entry_point_loads_a_module_or_what_stands_in_it():
    assert EntryPoint("json", "json").load().__name__ == "json"
    assert EntryPoint("dumps", "json:dumps").load()([]) == "[]"


def test_what_the_bundled_plugins_import_later_is_there():
    """No type checker reads these names."""
    loaded = registry.load()
    kinds = (getattr(loaded, kind) for kind in registry.Registry.__annotations__ if kind != "plugins")
    records = [item.record for items in kinds for item in items]
    laters = [value for record in records for value in vars_of(record) if isinstance(value, Later)]

    assert len(laters) > 40
    for later in laters:
        signature(later.function()).bind_partial(*later.arguments)


def vars_of(record):
    return [getattr(record, name) for name in type(record).__annotations__]


def test_a_function_that_comes_later_is_called_with_its_own_arguments_first():
    assert Later("operator:truediv", 6)(3) == 2
    with pytest.raises(ModuleNotFoundError):
        Later("nobody.knows:it")()
