//! `rehydrate diff` as it is called: what it prints, and its exit status.

mod common;

use std::fs;

use assert_cmd::Command;
use common::{at_root, examples};
use rehydrate::diff::{Operand, diff};
use serde_json::Value;

const GREETING: &str = "examples/greeting.cpython-313.pyc";

fn rehydrate(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("rehydrate").expect("it is built for tests");
    command.current_dir(at_root(".")).arg("diff").args(arguments);
    command
}

/// The exit status and standard output.
fn said(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stdout).expect("output is UTF-8"))
}

/// A file with one run of bytes changed to another of the same length.
fn changed(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = file.windows(from.len()).position(|bytes| bytes == from).expect("the file has it");
    [&file[..at], to, &file[at + from.len()..]].concat()
}

#[test]
fn the_same_file_is_equal() {
    assert_eq!(said(&mut rehydrate(&[GREETING, GREETING])), (Some(0), "equal\n".to_owned()));
}

#[test]
fn one_constant_and_the_source_time_are_two_differences() {
    let file = fs::read(at_root(GREETING)).unwrap();
    let mut other = changed(&file, b"Hello", b"Howdy");
    other[8] ^= 1;
    let (status, text) = said(rehydrate(&[GREETING, "-"]).write_stdin(other));
    assert_eq!(status, Some(1));
    assert!(text.starts_with("header: source time "), "{text}");
    assert!(text.contains("<module> > greet > co_consts > item "), "{text}");
    assert!(text.contains("'Hello, ' became 'Howdy, '\n"), "{text}");
    assert!(text.ends_with("1 difference in values, 1 in the header\n"), "{text}");
}

#[test]
fn one_source_compiled_in_two_ways_has_equal_objects() {
    // `compileall` with and without a hash in the header.
    let arguments = [GREETING, "examples/greeting-checked.cpython-313.pyc"];
    let (status, text) = said(&mut rehydrate(&arguments));
    assert_eq!(status, Some(1));
    assert!(text.contains("equal objects; 1 difference in the header"), "{text}");
    // The canonical form has other flags.
    let mut normalize = Command::cargo_bin("rehydrate").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("greeting.pyc");
    fs::copy(at_root(GREETING), &copy).unwrap();
    normalize.args(["normalize", "--in-place"]).arg(&copy).assert().success();
    let (status, text) = said(&mut rehydrate(&[GREETING, copy.to_str().unwrap()]));
    assert_eq!(status, Some(1));
    assert!(text.contains("equal objects; written differently: ") && text.contains("reference flag"), "{text}");
}

#[test]
fn a_pyc_equals_the_initializer_that_it_was_compiled_to() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = |options: &[&str]| -> String {
        let path = folder.path().join(format!("greeting{}.pyinit", options.len()));
        let mut compile = Command::cargo_bin("rehydrate").unwrap();
        compile.current_dir(at_root(".")).args(["compile", GREETING, "-o"]).arg(&path).args(options).assert().success();
        path.to_str().unwrap().to_owned()
    };
    assert_eq!(said(&mut rehydrate(&[GREETING, &compiled(&[])])), (Some(0), "equal\n".to_owned()));
    let bare = compiled(&["--no-source-flags", "--sharing", "identity"]);
    let caveat = "equal; A does not say how its dump was written, so flags are not compared\n";
    assert_eq!(said(&mut rehydrate(&[&bare, GREETING])), (Some(0), caveat.to_owned()));
}

#[test]
fn a_bare_dump_and_a_pyc_differ_in_the_header_alone() {
    let file = fs::read(at_root(GREETING)).unwrap();
    let (status, text) = said(rehydrate(&["--python", "3.13", "-", GREETING]).write_stdin(&file[16..]));
    assert_eq!(status, Some(1));
    assert_eq!(text, "header: length none became 16 bytes\nequal objects; 1 difference in the header\n");
}

#[test]
fn another_version_of_python_is_said() {
    let (status, text) = said(&mut rehydrate(&[GREETING, "examples/greeting.cpython-38.pyc", "--top", "1"]));
    assert_eq!(status, Some(1));
    assert!(text.starts_with("header: Python 3.13 became 3.8\n"), "{text}");
    assert!(text.contains("\n... and "), "{text}");
}

#[test]
fn json_says_the_same() {
    let other = changed(&fs::read(at_root(GREETING)).unwrap(), b"Hello", b"Howdy");
    let (status, text) = said(rehydrate(&[GREETING, "-", "--format", "json"]).write_stdin(other));
    assert_eq!(status, Some(1));
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["a"], &json["b"]), (&GREETING.into(), &"<stdin>".into()));
    assert_eq!((&json["equal"], &json["equal_objects"]), (&false.into(), &false.into()));
    let difference = &json["differences"][0];
    assert_eq!(difference["path"][1], "greet");
    assert_eq!((&difference["kind"], &difference["b"]), (&"value".into(), &"'Howdy, '".into()));
    assert_eq!(json["counts"]["values"], 1);
}

#[test]
fn trouble_is_status_2() {
    for arguments in [
        &["-", GREETING][..],
        &["-", "-"],
        &["examples", GREETING],
        &["nothing.pyc", GREETING],
        &[GREETING],
        &["--python", "3.13", "examples/refused/negative_tuple.cpython-313.marshal", GREETING],
    ] {
        rehydrate(arguments).write_stdin("no dump").assert().code(2).stdout("");
    }
}

#[test]
fn every_example_equals_itself() {
    for example in examples() {
        assert!(is_equal(&example.file, &example.file, &example), "{}", example.name);
    }
}

#[test]
fn every_changed_byte_is_said() {
    let is_small = |example: &common::Example| example.file.len() < 500;
    for example in examples().iter().filter(|example| is_small(example)) {
        for at in 0..example.file.len() {
            for bits in [1, 0x20, 0x80] {
                let mut other = example.file.clone();
                other[at] ^= bits;
                if Operand::open(&other, Some(example.python)).is_ok() {
                    assert!(!is_equal(&example.file, &other, example), "{} at byte {at:#x}", example.name);
                }
            }
        }
    }
}

fn is_equal(a: &[u8], b: &[u8], example: &common::Example) -> bool {
    let (a, b) = (Operand::open(a, Some(example.python)).unwrap(), Operand::open(b, Some(example.python)).unwrap());
    diff(&a.side().unwrap(), &b.side().unwrap(), 1).is_equal()
}
