//! `rehydrate snapshot`: what is emitted, held against files that insta reads, writes and reviews.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::cargo::cargo_bin_cmd;
use insta::Snapshot;
use tempfile::TempDir;

use common::at_root;
use rehydrate::{Options, Profile, snapshot};

/// A folder with inputs, `in`, and their snapshots, `snaps`.
struct Desk(TempDir);

impl Desk {
    /// Two modules, one of them in a package.
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("a temporary folder"));
        desk.copy("in/a.pyc", "greeting.cpython-313.pyc");
        desk.copy("in/pkg/b.pyc", "empty.cpython-313.pyc");
        desk
    }

    /// The same, with snapshots of both.
    fn accepted() -> Self {
        let desk = Self::new();
        desk.run("in --update", 0);
        desk
    }

    fn copy(&self, name: &str, example: &str) {
        self.put(name, &fs::read(at_root("examples").join(example)).expect("the example is there"));
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("it is below the desk")).expect("a folder can be made");
        fs::write(path, bytes).expect("a file can be written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The files in `snaps`, with what they hold.
    fn kept(&self) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.0.path().join("snaps")) else { return BTreeMap::new() };
        entries
            .map(|entry| entry.expect("the folder can be read").file_name().into_string().expect("names are ASCII"))
            .map(|name| (name.clone(), self.read(&format!("snaps/{name}"))))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.kept().into_keys().collect()
    }

    fn command(&self, words: &str) -> assert_cmd::Command {
        let mut command = cargo_bin_cmd!("rehydrate");
        command.current_dir(self.0.path()).args(["snapshot", "--dir", "snaps"]).args(words.split_whitespace());
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR");
        command
    }

    /// Runs `rehydrate snapshot --dir snaps` with these words, and gives what it prints and what it complains of.
    #[track_caller]
    fn run(&self, words: &str, status: i32) -> (String, String) {
        said(&mut self.command(words), status)
    }
}

#[track_caller]
fn said(command: &mut assert_cmd::Command, status: i32) -> (String, String) {
    let output = command.assert().code(status).get_output().clone();
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (text(output.stdout), text(output.stderr))
}

fn loaded(path: &Path) -> Snapshot {
    Snapshot::from_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn what_is_new_is_left_for_review() {
    let desk = Desk::new();
    let (said, _) = desk.run("in", 1);
    assert_eq!(
        said,
        "snaps/a.pyc.snap: missing, for review in snaps/a.pyc.snap.new\n\
         snaps/pkg__b.pyc.snap: missing, for review in snaps/pkg__b.pyc.snap.new\n"
    );
    assert_eq!(desk.names(), ["a.pyc.snap.new", "pkg__b.pyc.snap.new"]);
}

#[test]
fn what_was_accepted_passes_until_it_changes() {
    let desk = Desk::new();
    desk.run("in", 1);
    assert_eq!(desk.run("in --update", 0).0, "snaps/a.pyc.snap: new\nsnaps/pkg__b.pyc.snap: new\n");
    assert_eq!(desk.names(), ["a.pyc.snap", "pkg__b.pyc.snap"], "nothing is left to review");
    for mode in ["", "--check", "--update"] {
        assert_eq!(desk.run(&format!("in {mode}"), 0).0, "", "{mode}");
    }
    desk.copy("in/a.pyc", "greeting.cpython-312.pyc");
    desk.run("in --check", 1);
    assert_eq!(desk.run("in --update", 0).0, "snaps/a.pyc.snap: updated\n");
    desk.run("in --check", 0);
}

#[test]
fn a_change_is_shown_as_a_unified_diff() {
    let desk = Desk::accepted();
    let kept = desk.read("snaps/pkg__b.pyc.snap");
    desk.put("snaps/pkg__b.pyc.snap", kept.replace("<module>", "<moods>").as_bytes());
    let (said, _) = desk.run("in --check", 1);
    let mut lines = said.lines();
    let first: Vec<_> = lines.by_ref().take(3).collect();
    let name = "snaps/pkg__b.pyc.snap";
    assert_eq!(first, [format!("{name}: changed"), format!("--- {name}"), format!("+++ {name}.new")]);
    assert!(lines.next().is_some_and(|line| line.starts_with("@@ -")), "{said}");
    let changed = |sign: char, word: &str| said.lines().any(|line| line.starts_with(sign) && line.contains(word));
    assert!(changed('-', "<moods>") && changed('+', "<module>") && !said.contains('\x1b'), "{said}");
}

#[test]
fn rows_that_only_moved_are_not_shown_as_changed() {
    let desk = Desk::accepted();
    // The snapshot of an emitter that made one instruction more, of ten bytes and one value on the stack.
    let kept = desk.read("snaps/a.pyc.snap");
    let mut moved = String::new();
    for line in kept.lines() {
        match line.split_at_checked(4).and_then(|(at, rest)| Some((at.trim().parse::<u32>().ok()?, rest))) {
            Some((at, rest)) => {
                if at == 0 {
                    moved.push_str("   0  LOAD_INT           77                        ; 1  77\n");
                }
                moved.push_str(&format!("{:>4}{}\n", at + 10, rest.replace("; ", "; 1")));
            }
            None => moved.push_str(&format!("{line}\n")),
        }
    }
    desk.put("snaps/a.pyc.snap", moved.as_bytes());
    let (said, _) = desk.run("in --check", 1);
    let changed: Vec<_> = said.lines().skip(3).filter(|line| line.starts_with(['-', '+'])).collect();
    assert_eq!(changed, ["-   0  LOAD_INT           77                        ; 1  77"], "{said}");
}

#[test]
fn where_nothing_but_offsets_differs_these_are_shown() {
    let desk = Desk::accepted();
    let kept = desk.read("snaps/a.pyc.snap");
    desk.put("snaps/a.pyc.snap", kept.replace("\n   0  ", "\n   1  ").as_bytes());
    let (said, _) = desk.run("in --check", 1);
    let changed: Vec<_> = said.lines().skip(3).filter(|line| line.starts_with(['-', '+'])).collect();
    assert!(matches!(changed[..], [old, new] if old.starts_with("-   1  ") && new.starts_with("+   0  ")), "{said}");
}

#[test]
fn colours_are_for_terminals() {
    let desk = Desk::accepted();
    desk.copy("in/a.pyc", "greeting.cpython-312.pyc");
    let (plain, _) = desk.run("in --check", 1);
    let (painted, _) = said(desk.command("in --check").env("CLICOLOR_FORCE", "1"), 1);
    assert!(painted.contains("\x1b[31m-.python 3.13\x1b[0m\n\x1b[32m+"), "{painted}");
    assert_eq!(anstream::adapter::strip_str(&painted).to_string(), plain);
}

#[test]
fn check_writes_nothing() {
    let desk = Desk::new();
    assert_eq!(desk.run("in --check", 1).0, "snaps/a.pyc.snap: missing\nsnaps/pkg__b.pyc.snap: missing\n");
    assert!(!desk.0.path().join("snaps").exists());

    desk.run("in --update", 0);
    desk.put("snaps/a.pyc.snap.new", b"an earlier change");
    let before = desk.kept();
    desk.copy("in/pkg/b.pyc", "empty.cpython-314.pyc");
    desk.run("in --check", 1);
    assert_eq!(desk.kept(), before);
}

#[test]
fn a_change_that_is_taken_back_leaves_nothing_to_review() {
    let desk = Desk::accepted();
    let before = desk.kept();
    desk.copy("in/a.pyc", "greeting.cpython-312.pyc");
    desk.run("in", 1);
    assert_eq!(desk.names(), ["a.pyc.snap", "a.pyc.snap.new", "pkg__b.pyc.snap"]);
    desk.copy("in/a.pyc", "greeting.cpython-313.pyc");
    desk.run("in", 0);
    assert_eq!(desk.kept(), before);
}

#[test]
fn a_snapshot_without_an_input_is_named_and_kept() {
    let desk = Desk::accepted();
    fs::remove_file(desk.0.path().join("in/a.pyc")).expect("it is there");
    for mode in ["", "--check", "--update"] {
        assert_eq!(desk.run(&format!("in {mode}"), 0).1, "snaps: 1 not of these inputs: a.pyc.snap\n", "{mode}");
    }
    assert_eq!(desk.names(), ["a.pyc.snap", "pkg__b.pyc.snap"]);
}

#[test]
fn two_inputs_with_one_name_are_refused_before_anything_is_written() {
    let desk = Desk::new();
    desk.copy("in/pkg__b.pyc", "greeting.cpython-313.pyc");
    let (_, said) = desk.run("in --update", 2);
    assert!(said.contains("would both have the snapshot snaps/pkg__b.pyc.snap"), "{said}");
    assert!(desk.names().is_empty());
}

#[test]
fn a_refused_input_does_not_keep_the_others_from_being_held() {
    let desk = Desk::new();
    desk.put("in/bad.pyc", b"no pyc at all");
    let (printed, complaint) = desk.run("in --update", 1);
    assert_eq!(printed, "snaps/a.pyc.snap: new\nsnaps/pkg__b.pyc.snap: new\n");
    assert!(complaint.contains("in/bad.pyc: "), "{complaint}");
}

#[test]
fn standard_input_has_a_snapshot_too() {
    let desk = Desk::new();
    let dump = fs::read(at_root("examples/tuple_of_issue566.cpython-313.marshal")).expect("the example is there");
    said(desk.command("- --python 3.13 --update").write_stdin(dump), 0);
    assert_eq!(desk.names(), ["stdin.snap"]);
}

#[test]
fn a_snapshot_holds_what_the_library_gives() {
    let desk = Desk::accepted();
    let file = fs::read(desk.0.path().join("in/a.pyc")).expect("it is there");
    let text = snapshot::text(&file, None, Options::default()).expect("it can be built");
    assert_eq!(snapshot::contents(&desk.read("snaps/a.pyc.snap")), text.trim_end());

    desk.run("in --update --profile core", 0);
    let options = Options { profile: Profile::Core, ..Options::default() };
    let text = snapshot::text(&file, None, options).expect("it can be built");
    assert_eq!(snapshot::contents(&desk.read("snaps/a.pyc.snap")), text.trim_end());
}

#[test]
fn insta_reads_and_writes_the_same_files() {
    let desk = Desk::new();
    desk.run("in --profile core --start-code", 1);
    let path = desk.0.path().join("snaps/pkg__b.pyc.snap.new");
    let read = loaded(&path);
    assert_eq!(read.metadata().source(), Some("pkg/b.pyc"));
    assert_eq!(read.metadata().expression(), Some("rehydrate snapshot --profile core --start-code"));
    let text = read.as_text().expect("it is text").to_string();
    assert_eq!(text, snapshot::contents(&desk.read("snaps/pkg__b.pyc.snap.new")));

    // As `cargo insta accept` does.
    read.save(&desk.0.path().join("snaps/pkg__b.pyc.snap")).expect("it can be written");
    assert_eq!(desk.read("snaps/pkg__b.pyc.snap"), desk.read("snaps/pkg__b.pyc.snap.new"));
    assert_eq!(desk.run("in --check --profile core --start-code", 1).0, "snaps/a.pyc.snap: missing\n");
}

#[test]
fn insta_reads_names_that_yaml_would_take_for_something_else() {
    let desk = Desk::new();
    for name in ["a: b.pyc", "- a.pyc", "#a.pyc", "'a\".pyc", "é.pyc", "1e5.pyc"] {
        desk.copy(&format!("odd/{name}"), "empty.cpython-313.pyc");
        desk.run("odd --update", 0);
        let read = loaded(&desk.0.path().join(format!("snaps/{name}.snap")));
        assert_eq!(read.metadata().source(), Some(name));
    }
}

#[test]
fn front_matter_and_line_ends_do_not_count() {
    let desk = Desk::accepted();
    let kept = desk.read("snaps/a.pyc.snap").replace("source: ", "assertion_line: 3\nsource: elsewhere/");
    desk.put("snaps/a.pyc.snap", kept.replace('\n', "\r\n").as_bytes());
    desk.run("in --check", 0);
}

#[test]
fn a_snapshot_that_is_no_snapshot_has_changed() {
    let desk = Desk::accepted();
    for content in [&b""[..], b"\xff\xfe", b"---\nsource: a", b"<<<<<<< ours\n"] {
        desk.put("snaps/a.pyc.snap", content);
        assert!(desk.run("in --check", 1).0.starts_with("snaps/a.pyc.snap: changed\n"));
    }
}

#[test]
fn wrong_usage_is_told_from_a_change() {
    let desk = Desk::accepted();
    desk.run("in --check --update", 2);
    desk.run("nosuch", 2);
    assert_eq!(desk.kept(), Desk::accepted().kept());
}

#[test]
fn snapshots_are_kept_in_a_folder() {
    let desk = Desk::new();
    desk.put("snaps", b"");
    let (_, said) = desk.run("in --update", 2);
    assert!(said.contains("--dir snaps: is not a folder"), "{said}");
}
