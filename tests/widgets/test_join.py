"""Joining ES modules into one script; the result runs in Chromium."""

import re

import pytest
from oss_widgets.join import FOLDER, join_modules, read_modules

MODULES = {
    "top.js": """
import { double, triple as times3 } from "./low/numbers.js";
import {
  Counter,
} from "./low/counter.js";
export const six = double(3);
export async function later() { return times3(six); }
export function* count() { yield new Counter().next(); }
""",
    "low/numbers.js": """
const two = 2;
export function double(x) { return two * x; }
export function triple(x) { return 3 * x; }
""",
    "low/counter.js": """
import { triple } from "../low/numbers.js";
export class Counter { next() { return triple(1); } }
""",
    "unused.js": "export const unused = 1;",
}


def test_a_joined_script_runs(open_script):
    page = open_script(join_modules(MODULES, ["top.js"]))
    run = """async () => {
      const { six, later, count } = modules["top.js"];
      return [six, await later(), [...count()], Object.keys(modules), typeof two];
    }"""
    names = ["low/numbers.js", "low/counter.js", "top.js"]
    assert page.evaluate(run) == [6, 18, [3], names, "undefined"]


def test_every_module_is_joined_by_default(open_script):
    page = open_script(join_modules(read_modules()))
    assert set(page.evaluate("Object.keys(modules)")) == set(read_modules())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import * as all from "./x.js";', "cannot be joined: import"),
        ('import "./x.js";', "cannot be joined: import"),
        ('import { a } from "somewhere";', "cannot be joined: import"),
        ("export default function f() {}", "cannot be joined: export default"),
        ("export let x = 1;", "cannot be joined: export let"),
        ("export { a };", "cannot be joined: export {"),
        ('import { a } from "./gone.js";', "a.js needs gone.js, which does not exist"),
        ('import { a } from "./a.js";', "import each other: a.js -> a.js"),
    ],
)
def test_other_forms_are_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        join_modules({"a.js": text, "x.js": ""})


def test_a_missing_entry_is_refused():
    with pytest.raises(ValueError, match=r"the script needs b\.js"):
        join_modules({}, ["b.js"])


def test_modules_name_no_address_but_xml_namespaces():
    for name, text in read_modules().items():
        found = re.findall(r"https?://[^\s\"'`)]+", text)
        assert not [each for each in found if not each.startswith("http://www.w3.org/")], name
        assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts)\(", text), name


def test_a_module_is_short():
    for file in FOLDER.rglob("*.js"):
        assert len(file.read_text("utf-8").splitlines()) <= 280, file.name
