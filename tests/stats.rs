//! `rehydrate stats`: its numbers add up, and agree with what other commands say.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use rehydrate::isa::Op;
use rehydrate::stats::{Coding, measure};
use rehydrate::{Input, Options, compile, disassemble, verify};
use serde_json::Value;

use common::{at_root, examples};

/// The examples that say their version themselves.
fn pycs() -> Vec<PathBuf> {
    let pycs = examples().into_iter().filter(|example| !example.is_dump());
    pycs.map(|example| at_root("examples").join(example.name)).collect()
}

fn stats(inputs: &[PathBuf], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehydrate"));
    command.arg("stats").args(inputs).args(args);
    command
}

fn text(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&text(command.args(["--format", "json"]))).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn sum<'v>(values: impl IntoIterator<Item = &'v Value>) -> u64 {
    values.into_iter().map(number).sum()
}

#[test]
fn the_numbers_add_up() {
    let pycs = pycs();
    let all = json(&mut stats(&pycs, &["--raw"]));
    let rows = |key: &str| all[key].as_array().unwrap().iter();
    let raw = &all["against_marshal"]["raw"];
    assert_eq!(all["n_files"], pycs.len());
    assert_eq!(raw["n_files"], pycs.len());
    assert_eq!(raw["payload"], all["payload_bytes"]);
    assert_eq!(sum(all["parts"].as_object().unwrap().values()), number(&all["payload_bytes"]));
    assert_eq!(sum(rows("instructions").map(|row| &row["bytes"])), number(&all["parts"]["instructions"]));
    let wrapping = ["source_bytes", "container_bytes", "header_bytes"].map(|key| &all[key]);
    assert_eq!(number(&all["payload_bytes"]) + sum(wrapping), number(&all["file_bytes"]));
    for (key, per_file) in [("payload", "payload"), ("marshal", "marshal")] {
        assert_eq!(sum(rows("files").map(|file| &file[per_file]["raw"])), number(&raw[key]));
    }
    let on_disk: u64 = pycs.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(number(&raw["marshal"]) + number(&all["header_bytes"]), on_disk);
    for (total, per_file) in
        [("n_shared", "n_shared"), ("n_references", "n_references"), ("n_extended_references", "n_extended_references")]
    {
        assert_eq!(sum(rows("files").map(|file| &file[per_file])), number(&all[total]));
    }
    assert_eq!(sum(all["shared_by_uses"].as_object().unwrap().values()), number(&all["n_shared"]));
    assert_eq!(sum(all["objects"].as_object().unwrap().values().map(|row| &row["shared"])), number(&all["n_shared"]));
    let highest = rows("files").map(|file| number(&file["max_stack"])).max();
    assert_eq!(Some(number(&all["max_stack_per_file"]["max"])), highest);
}

#[test]
fn opcodes_are_counted_as_they_are_listed() {
    for example in examples() {
        let Input::Source(source) = Input::read(&example.file, Some(example.python)).unwrap() else { unreachable!() };
        let Ok(initializer) = compile(&source, Options::default()) else { continue };
        let verified = verify(initializer.image).unwrap();
        let mut listed: BTreeMap<Op, usize> = BTreeMap::new();
        for row in disassemble(&verified, &[]).rows() {
            *listed.entry(row.instruction.op).or_default() += 1;
        }
        let measured = measure(&source, Options::default(), &[]).unwrap();
        let counted = measured.instructions.into_iter().map(|(op, emitted)| (op, emitted.count)).collect();
        assert_eq!(listed, counted, "{}", example.name);
        assert_eq!(measured.max_stack, verified.image().max_stack, "{}", example.name);
    }
}

#[test]
fn threads_make_no_difference() {
    let pycs = pycs();
    for format in ["text", "json"] {
        let [one, two] = ["1", "2"].map(|jobs| text(&mut stats(&pycs, &["--format", format, "--jobs", jobs])));
        assert_eq!(one, two);
    }
}

#[test]
fn the_text_says_what_the_json_says() {
    let pycs = pycs();
    let lines = text(&mut stats(&pycs, &["--raw"])).replace(',', "");
    let all = json(&mut stats(&pycs, &["--raw"]));
    let raw = &all["against_marshal"]["raw"];
    let share = 100.0 * raw["ratio"].as_f64().unwrap();
    let first =
        format!("payload {} of {} bytes: {share:.1} % ({} files)\n", raw["payload"], raw["marshal"], pycs.len());
    assert!(lines.starts_with(&first), "{lines}");
    let has = |name: &str, number: &Value| {
        let row = lines.lines().map(|line| line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()));
        let mut rows = row.map(|mut cells| (cells.next(), cells.next().map(str::to_owned)));
        assert!(rows.any(|row| row == (Some(name), Some(number.to_string()))), "{name} {number} in {lines}");
    };
    has("whole file", &all["file_bytes"]);
    has(
        "LOAD_FAST",
        &all["instructions"].as_array().unwrap().iter().find(|row| row["name"] == "LOAD_FAST").unwrap()["count"],
    );
    has("tuple", &all["objects"]["tuple"]["count"]);
    has("stack height", &all["max_stack_per_file"]["median"]);
    assert!(!lines.contains("zlib"), "--raw does not compress");
}

#[test]
fn each_file_is_compressed_by_itself() {
    let pycs = &pycs()[..2];
    let all = json(&mut stats(pycs, &[]));
    for coding in ["zlib_6", "zstd_19"] {
        let alone = pycs.iter().map(|path| json(&mut stats(std::slice::from_ref(path), &[])));
        let sizes: u64 = alone.map(|one| number(&one["against_marshal"][coding]["payload"])).sum();
        assert_eq!(number(&all["against_marshal"][coding]["payload"]), sizes);
    }
    assert_eq!(Coding::ALL.len(), all["against_marshal"].as_object().unwrap().len());
}

#[test]
fn an_initializer_is_measured_against_the_dump_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let pyc = at_root("examples/greeting.cpython-313.pyc");
    let compiled = |name: &str, args: &[&str]| {
        let path = folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_rehydrate"));
        command.arg("compile").arg(&pyc).arg("-o").arg(&path).args(args).assert().success();
        [path]
    };
    let of_pyc = json(&mut stats(std::slice::from_ref(&pyc), &[]));
    let whole = json(&mut stats(&compiled("whole.pyinit", &[]), &[]));
    assert_eq!(whole["against_marshal"], of_pyc["against_marshal"]);
    let bare = json(&mut stats(&compiled("bare.pyinit", &["--no-source-flags"]), &[]));
    assert_eq!((&bare["payload_bytes"], &bare["source_bytes"]), (&of_pyc["payload_bytes"], &Value::from(0)));
    assert_eq!((bare["against_marshal"].to_string(), &bare["files"][0]["marshal"]), ("{}".to_owned(), &Value::Null));
}

#[test]
fn a_refused_input_is_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(at_root("examples/greeting.cpython-313.pyc"), folder.path().join("good.pyc")).unwrap();
    fs::write(folder.path().join("bad.pyc"), b"no pyc at all").unwrap();
    let assert = stats(&[folder.path().to_owned()], &[]).assert().code(1);
    let output = assert.get_output();
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.pyc"));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("payload "));
}

#[test]
fn the_largest_gains_and_losses_are_named() {
    let pycs = pycs();
    let all = json(&mut stats(&pycs, &["--raw"]));
    let ratio = |file: &&Value| number(&file["payload"]["raw"]) as f64 / number(&file["marshal"]["raw"]) as f64;
    let best = all["files"].as_array().unwrap().iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b))).unwrap();
    let lines = text(&mut stats(&pycs, &["--raw", "--top", "1"]));
    let gain = lines.lines().skip_while(|line| !line.starts_with("largest gains")).nth(1).unwrap();
    assert!(gain.trim().starts_with(best["input"].as_str().unwrap()), "{gain}");
    assert!(!text(&mut stats(&pycs, &["--raw", "--top", "0"])).contains("largest gains"));
}
