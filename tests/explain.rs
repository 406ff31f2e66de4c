//! `rehydrate explain`: what is shared and why, in every format.

mod common;

use std::fs;
use std::process::Command as Process;

use assert_cmd::Command;
use rehydrate::{Input, Options, Python, Sharing, explain};
use serde_json::Value;

use common::{at_root, examples};

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

#[test]
fn a_docstring_that_one_function_has_is_said_to_be_needed_once() {
    let text = explained("closures.cpython-313.pyc", &["--value", "Return the function"]);
    assert!(text.contains("compose co_consts[0] (docstring)"), "{text}");
    assert!(text.contains("it is needed once, so it is made where it is needed"), "{text}");
}

/// Two functions `f` and `g`, whose docstrings are `first` and `second` as marshal spells them.
fn two_functions(first: &[u8], second: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&b"z"[..], &[text.len() as u8], text.as_bytes()].concat();
    let function = |name: &str, docstring: &[u8]| {
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
    };
    [b")\x02".to_vec(), function("f", first), function("g", second)].concat()
}

#[test]
fn a_docstring_of_two_functions_is_one_value_with_both_places() {
    let dump = two_functions(b"z\x0bSay nothing", b"z\x0bSay nothing");
    let text = explanation(&dump, Options::default()).with_value("Say").to_string();
    // The constants of both are one tuple, which holds it once.
    assert!(text.contains("f co_consts[0] (docstring, in n2), g co_consts[0] (docstring, in n2)"), "{text}");
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
fn every_example_that_compiles_is_explained_in_every_format() {
    for example in examples() {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("a source") };
        for sharing in common::SHARINGS {
            let options = Options { sharing, ..Options::default() };
            let Ok(compiled) = rehydrate::compile(&source, options) else { continue };
            let explanation = explain(&source, options).unwrap();
            assert_eq!(explanation.totals.size.bytes, compiled.image.payload_len(), "{}", example.name);
            assert_eq!(explanation.totals.max_stack, compiled.image.max_stack);
            let decided: usize = explanation.totals.decisions.iter().map(|(_, n)| n).sum();
            assert_eq!(decided, explanation.values.len());
            assert!(!explanation.to_string().is_empty());
            assert!(explanation.dot().starts_with("digraph {"));
            assert!(explanation.json()["values"].is_array());
            check_markup(&explanation.html());
        }
    }
}

#[test]
fn json_says_where_a_value_waits_and_what_the_alternatives_cost() {
    let all = json("classes.cpython-313.pyc", &["--value", "examples/classes.py"]);
    let value = &all["values"][0];
    assert_eq!(value["decision"], "hoist");
    assert_eq!(value["waits"]["slot"], 6);
    let cost = |name: &str| value["costs"][name].as_u64().unwrap();
    assert_eq!(value["saved"].as_u64().unwrap(), cost("rebuild") - cost("hoist"));
    assert_eq!(value["places"].as_array().unwrap().len() as u64, cost("uses"));
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
