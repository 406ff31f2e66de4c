//! `rehydrate explain`: what is shared and why, in every format.

mod common;

use std::fs;
use std::process::Command as Process;

use assert_cmd::Command;
use rehydrate::explain::Explained;
use rehydrate::{Input, Options, Profile, Python, Sharing, explain, graph};
use serde_json::Value;

use common::{Example, at_root, examples, text_of};

fn explained(example: &str, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehydrate"));
    command.arg("explain").arg(at_root("examples").join(example)).args(["--python", "3.13"]).args(args);
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

fn json(example: &str, args: &[&str]) -> Value {
    serde_json::from_str(&explained(example, &[&["--format", "json"], args].concat())).unwrap()
}

fn explanation(dump: &[u8], options: Options) -> rehydrate::Explanation {
    let Ok(Input::Source(source)) = Input::read(dump, Python::new(13)) else { panic!("a dump") };
    explain(&source, options).unwrap()
}

/// An example, with the name under which the README shows it.
fn example(name: &str, options: Options) -> rehydrate::Explanation {
    let example = Example::open(&at_root("examples").join(name));
    let Ok(Input::Source(source)) = Input::read(&example.file, None) else { panic!("a .pyc") };
    explain(&source, options).unwrap().with_name(&format!("examples/{name}"))
}

/// The places of the only value that is shown, each as its code object, and whether it is a docstring.
fn places(explanation: &rehydrate::Explanation) -> Vec<(String, bool)> {
    let [at] = *explanation.subjects() else { panic!("{explanation}") };
    let places = explanation.places(at, &mut 100);
    places.into_iter().map(|place| (place.code.unwrap_or_default(), place.is_docstring)).collect()
}

// --- One object or several ---

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = text_of("README.md");
    let shared = example("docstrings.cpython-313.pyc", Options::default()).with_value("Return");
    let command = "$ rehydrate explain examples/docstrings.cpython-313.pyc --value Return";
    assert!(readme.contains(&format!("```console\n{command}\n{shared}```\n")), "{shared}");
    let options = Options { sharing: Sharing::None, ..Options::default() };
    let unshared = example("docstrings.cpython-313.pyc", options).with_value("Return").to_string();
    assert!(
        unshared.contains("2 for 2 places: not shared") && readme.contains("2 for 2 places: not shared"),
        "{unshared}"
    );
}

#[test]
fn a_docstring_that_one_function_has_is_one_object_for_one_place() {
    let text = explained("closures.cpython-313.pyc", &["--value", "Return the function"]);
    assert!(text.contains("objects     1 for 1 place\n"), "{text}");
    assert!(text.contains("compose co_consts[0] (docstring)\n"), "{text}");
}

#[test]
fn a_docstring_in_a_tuple_that_is_shared_is_shared_as_that_is() {
    let shared = example("docstrings.cpython-313.pyc", Options::default()).with_value("Not written").to_string();
    assert!(shared.contains("1 for 2 places: shared, as n41 is, which holds it"), "{shared}");
    assert!(shared.contains("Pair.swap co_consts[0] (docstring) in n41, Pair.copy co_consts[0] (docstring) in n41"));
    assert!(shared.contains("it has one use, in n41, and is made there"), "{shared}");
    let options = Options { sharing: Sharing::None, ..Options::default() };
    let unshared = example("docstrings.cpython-313.pyc", options).with_value("Not written").to_string();
    assert!(unshared.contains("2 for 2 places: not shared"), "{unshared}");
}

#[test]
fn an_interned_str_is_one_object_however_often_it_is_made() {
    let options = Options { sharing: Sharing::None, ..Options::default() };
    let text = example("docstrings.cpython-313.pyc", options).with_value("double").to_string();
    assert!(text.contains("1 for 3 places: shared, as CPython has one for the whole process"), "{text}");
}

#[test]
fn objects_are_as_many_as_running_makes() {
    for example in examples() {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("a source") };
        for sharing in common::SHARINGS {
            let options = Options { sharing, ..Options::default() };
            let Ok(compiled) = rehydrate::compile(&source, options) else { continue };
            let verified = rehydrate::verify(compiled.image).unwrap();
            let (heap, root) = rehydrate::run(&verified);
            let ran = graph::lower_heap(&heap, root, Sharing::Identity).unwrap();
            let explanation = explain(&source, options).unwrap();
            let n_objects: u64 = explanation.values.iter().map(|value| value.n_objects).sum();
            // One instruction loads every empty frozenset, though without sharing each is a value of its own.
            let is_loaded = |value: &&Explained| value.value == "frozenset()" && sharing == Sharing::None;
            let n_again = explanation.values.iter().filter(is_loaded).count().saturating_sub(1);
            assert_eq!(n_objects, (ran.len() + n_again) as u64, "{} ({sharing:?})", example.name);
        }
    }
}

// --- Docstrings ---

#[test]
fn docstrings_of_functions_classes_and_modules_are_marked_in_every_version() {
    for python in Python::all() {
        let name = format!("docstrings.cpython-3{}.pyc", python.minor());
        let all = example(&name, Options::default());
        let marked = |text: &str| places(&all.clone().with_value(text));
        let docstring_of = |code: &str| (code.to_owned(), true);
        assert_eq!(marked("a multiple of"), ["double", "triple"].map(docstring_of), "{name}");
        assert_eq!(marked("the first"), [docstring_of("first")], "{name}");
        assert_eq!(marked("Two items."), [docstring_of("Pair")], "{name}");
        assert_eq!(marked("Two functions"), [docstring_of("<module>")], "{name}");
        assert_eq!(marked("Not written"), ["Pair.swap", "Pair.copy"].map(docstring_of), "{name}");
        assert_eq!(all.with_value("(docstring)").subjects().len(), 6, "{name}");
    }
}

#[test]
fn constants_that_are_no_docstrings_are_not_marked() {
    for example in examples().iter().filter(|example| !example.is_dump() && !example.name.starts_with("docstrings")) {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("a source") };
        let explanation = explain(&source, Options::default()).unwrap();
        for (at, value) in explanation.values.iter().enumerate() {
            let is_marked = explanation.places(at, &mut 32).iter().any(|place| place.is_docstring);
            assert!(!is_marked || value.value.ends_with(".'"), "{}: {}", example.name, value.value);
        }
    }
}

// --- What --value finds ---

#[test]
fn every_place_of_what_was_asked_for_is_named() {
    // Fifty functions with one tuple of constants, under one name each.
    let functions: Vec<u8> = (0..50).flat_map(|at| function(&format!("f{at}"), b"z\x0bSay nothing")).collect();
    let dump = [b"(\x32\0\0\0".as_slice(), &functions].concat();
    let text = explanation(&dump, Options::default()).with_value("Say").to_string();
    assert!(text.contains("1 for 50 places: shared") && !text.contains("more"), "{text}");
    assert!((0..50).all(|at| text.contains(&format!("f{at} co_consts[0] (docstring)"))), "{text}");
}

#[test]
fn a_text_is_found_in_literals_then_in_places_and_not_again_in_what_holds_it() {
    let found = example("docstrings.cpython-313.pyc", Options::default()).with_value("first");
    let found: Vec<&str> = found.subjects().iter().map(|at| &*found.values[*at].value).collect();
    assert_eq!(found[..4], ["'__firstlineno__'", "'first'", "'Return the first item.'", "<code first>"]);
    assert!(found[4..].contains(&"'items'"), "it is needed by first: {found:?}");
    let pair = example("docstrings.cpython-313.pyc", Options::default()).with_value("item.', 0");
    assert_eq!(pair.values[pair.subjects()[0]].value, "('Return the first item.', 0)");
}

#[test]
fn a_text_that_is_nowhere_is_said_to_be() {
    let text = explained("docstrings.cpython-313.pyc", &["--value", "return"]);
    let said = "is in the literal of no value, and in no place where one is needed; upper and lower case differ\n";
    assert!(text.ends_with(said), "{text}");
}

// --- Apart ---

/// A function, whose docstring is as marshal spells it.
fn function(name: &str, docstring: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&b"z"[..], &[text.len() as u8], text.as_bytes()].concat();
    let numbers = [0_i32, 0, 0, 1, 3].map(i32::to_le_bytes).concat();
    let bytes = |bytes: &[u8]| [&b"s"[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    [
        &b"c"[..],
        &numbers,
        &bytes(b"\x95\0g\0"),
        b")\x01",
        docstring,
        b")\0)\0",
        &bytes(b""),
        &text("m.py"),
        &text(name),
        &text(name),
        &1_i32.to_le_bytes(),
        &bytes(b"\x01"),
        &bytes(b""),
    ]
    .concat()
}

fn two_functions(first: &[u8], second: &[u8]) -> Vec<u8> {
    [b")\x02".to_vec(), function("f", first), function("g", second)].concat()
}

#[test]
fn a_docstring_interned_in_one_function_is_two_values_and_says_why() {
    let dump = two_functions(b"z\x0bSay nothing", b"Z\x0bSay nothing");
    let text = explanation(&dump, Options::default()).with_value("Say").to_string();
    assert!(text.contains("is interned and") && text.contains("is not: two values"), "{text}");
    assert!(text.contains("f co_consts[0] (docstring)") && text.contains("g co_consts[0] (docstring)"), "{text}");
}

#[test]
fn equal_code_objects_and_lists_are_said_not_to_merge() {
    let text = explained("code_equal.cpython-313.marshal", &["--value", "<code"]);
    assert!(text.contains("but a code object: never merged"), "{text}");
    let lists = explanation(b")\x02[\x01\0\0\0N[\x01\0\0\0N", Options::default()).to_string();
    assert!(lists.contains("but a list, which may change: never merged"), "{lists}");
}

#[test]
fn a_nan_and_unshared_equals_say_why_they_are_two() {
    let nan = [b"g".as_slice(), &f64::NAN.to_bits().to_le_bytes()].concat();
    let dump = [b")\x02".as_slice(), &nan, &nan].concat();
    assert!(explanation(&dump, Options::default()).to_string().contains("but a NaN"));
    let dump = b")\x02iX\x1b\0\0iX\x1b\0\0";
    let options = Options { sharing: Sharing::Identity, ..Options::default() };
    assert!(explanation(dump, options).to_string().contains("the dump does not share them"));
}

#[test]
fn true_and_false_are_not_equal() {
    let text = explanation(b")\x04TFTF", Options::default()).to_string();
    assert!(text.contains("True") && text.contains("False") && !text.contains("apart"), "{text}");
}

// --- Every format ---

#[test]
fn every_example_that_compiles_is_explained_in_every_format() {
    for example in examples() {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("a source") };
        let profiles = [Profile::Core, Profile::Compact, Profile::Load];
        for (sharing, profile) in
            common::SHARINGS.into_iter().flat_map(|sharing| profiles.map(|profile| (sharing, profile)))
        {
            let options = Options { sharing, profile, ..Options::default() };
            let Ok(compiled) = rehydrate::compile(&source, options) else { continue };
            let explanation = explain(&source, options).unwrap();
            assert_eq!(explanation.totals.size.bytes, compiled.image.payload_len(), "{}", example.name);
            assert_eq!(explanation.totals.max_stack, compiled.image.max_stack);
            let decided: usize = explanation.totals.decisions.iter().map(|(_, n)| n).sum();
            assert_eq!(decided, explanation.values.len());
            assert!(!explanation.to_string().is_empty());
            assert!(explanation.dot().starts_with("digraph {"));
            let json: Value = serde_json::from_str(&explanation.json()).unwrap();
            assert!(json["values"].is_array() && json["stack"].is_array());
            check_markup(&explanation.html());
        }
    }
}

#[test]
fn json_says_where_a_value_waits_and_what_the_alternatives_cost() {
    let all = json("classes.cpython-313.pyc", &["--value", "examples/classes.py"]);
    let value = &all["values"][0];
    assert_eq!(value["decision"], "hoist");
    assert_eq!(value["waits"]["slot"], 3);
    let cost = |name: &str| value["costs"][name].as_u64().unwrap();
    assert_eq!(value["saved"].as_u64().unwrap(), cost("rebuild") - cost("hoist"));
    assert_eq!(value["places"].as_array().unwrap().len() as u64, cost("uses"));
    assert_eq!(value["objects"], 1);
    let heights = all["stack"].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap());
    assert_eq!(heights.max(), all["max_stack"]["values"].as_u64());
}

#[test]
fn a_drawing_says_what_it_leaves_out() {
    let dot = explained("classes.cpython-313.pyc", &["--format", "dot", "--top", "8"]);
    assert!(dot.contains("8 of ") && dot.contains("are left out"), "{dot}");
    let labels = dot.lines().filter(|line| line.contains("label = "));
    assert_eq!(labels.count(), 9);
    let whole = explained("greeting.cpython-313.pyc", &["--format", "dot"]);
    assert!(!whole.contains("are left out"));
}

#[test]
fn a_drawing_of_two_inputs_is_wrong_usage() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehydrate"));
    let inputs = ["empty", "greeting"].map(|name| at_root("examples").join(format!("{name}.cpython-313.pyc")));
    command.arg("explain").args(inputs).args(["--format", "dot"]);
    command.assert().code(2);
}

// --- The page ---

/// A dump whose strings try to leave their place in a page or a drawing.
fn hostile() -> Vec<u8> {
    let mut dump = b")\x06".to_vec();
    for text in [r#"</script><script>alert(1)</script>"#, r#""><img src=x onerror=alert(1)>"#, "\\\"]; }\n&lt;<!--"] {
        for _ in 0..2 {
            dump.extend([b'z', text.len() as u8]);
            dump.extend(text.as_bytes());
        }
    }
    dump
}

/// Checks that every element that is opened is closed, in order, and that attributes are quoted.
fn check_markup(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    let mut open: Vec<&str> = Vec::new();
    let mut rest = &page["<!DOCTYPE html>".len()..];
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name = tag.split([' ', '/', '\n']).find(|word| !word.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another");
        } else if !tag.ends_with('/') && !["meta", "input"].contains(&name) {
            open.push(name);
            if ["script", "style"].contains(&name) {
                let close = format!("</{name}>");
                rest = &rest[rest.find(&close).expect("it ends")..];
            }
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

#[test]
fn a_page_holds_nothing_of_the_input_as_markup() {
    let page = explanation(&hostile(), Options::default()).with_name("<b onclick=\"x\">.pyc").html();
    check_markup(&page);
    assert!(!page.contains("<script>alert") && !page.contains("<img") && !page.contains("<b "), "{page}");
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert!(page.matches("<script>").count() == 1, "the page's own script is the only one");
}

#[test]
fn a_page_loads_nothing() {
    let page = explained("classes.cpython-313.pyc", &["--format", "html"]);
    check_markup(&page);
    for word in ["http://", "https://", "src=", "href=\"/", "@import", "url("] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

/// What a script leaves in `<pre id="told">` of a page, in a headless Chromium; `None` without one.
fn in_chromium(page: &str, script: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let told = format!("<pre id=\"told\"></pre><script>{{{script}}}</script></body>");
    fs::write(&path, page.replace("</body>", &told)).unwrap();
    let mut command = Process::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    command.arg(format!("file://{}", path.display()));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: no headless Chromium ({error}); `apt-get install chromium` runs this test");
            return None;
        }
    };
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = dom.split("<pre id=\"told\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let told = told.unwrap_or_else(|| panic!("{dom}\n{}", String::from_utf8_lossy(&output.stderr)));
    Some(told.to_owned())
}

#[test]
fn the_page_works_in_a_browser() {
    let page = explained("classes.cpython-313.pyc", &["--format", "html"]);
    let script = r##"
        const told = document.getElementById("told");
        const say = text => told.append(text + "\n");
        window.onerror = error => say("error " + error);
        const visible = () => [...document.querySelectorAll("#values tbody tr")].filter(row => !row.hidden);
        const copy = document.querySelector("#listing [data-copies]");
        copy.focus();
        say("focus: " + document.getElementById("about").textContent);
        say("lit: " + document.querySelectorAll("#listing .source").length);
        copy.blur();
        copy.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
        say("hover: " + document.getElementById("about").textContent);
        copy.focus();
        copy.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
        say("enter: " + document.activeElement.classList.contains("row") + (document.activeElement !== copy));
        const before = document.activeElement;
        before.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
        say("down: " + (document.activeElement === before.nextElementSibling));
        const search = document.getElementById("search");
        search.value = "Rectangle";
        search.dispatchEvent(new Event("input"));
        say("found: " + (visible().length > 0 && visible().every(row => row.textContent.includes("Rectangle"))));
        search.value = "";
        search.dispatchEvent(new Event("input"));
        const uses = document.querySelector("#values th[data-key=uses] button");
        uses.click();
        const numbers = visible().map(row => +row.querySelector(".uses").textContent);
        say("sorted: " + numbers.every((n, at) => at === 0 || numbers[at - 1] >= n));
        say("stated: " + uses.closest("th").getAttribute("aria-sort"));
        say("plot: " + (document.querySelector("svg polyline").getBoundingClientRect().height > 20));
    "##;
    let Some(told) = in_chromium(&page, script) else { return };
    assert!(!told.contains("error"), "{told}");
    for wanted in ["enter: truetrue", "down: true", "found: true", "sorted: true", "stated: descending", "plot: true"] {
        assert!(told.contains(wanted), "{wanted} is not in\n{told}");
    }
    let line = |head: &str| told.lines().find(|line| line.starts_with(head)).unwrap_or_default().to_owned();
    assert!(line("focus: ").contains("copies") && line("hover: ").contains("made by"), "{told}");
    assert_ne!(line("lit: "), "lit: 0", "{told}");
}

#[test]
fn hostile_text_runs_nothing_in_a_browser() {
    let page = explanation(&hostile(), Options::default()).html();
    let page = page.replacen("<script>", "<script>window.alert = () => { window.broken = true; };", 1);
    let script = "document.getElementById('told').textContent = 'broken: ' + !!window.broken;";
    let Some(told) = in_chromium(&page, script) else { return };
    assert_eq!(told, "broken: false");
}
