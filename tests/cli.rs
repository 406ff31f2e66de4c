//! The command line, as its users have it: a folder, a line typed into it, and what comes of that.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in.
struct Desk {
    folder: TempDir,
}

impl Desk {
    /// Copies of examples, each under the name it is given: `("a.pyc", "greeting.cpython-313.pyc")`.
    fn with(files: &[(&str, &str)]) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        for (name, of) in files {
            desk.put(name, &example(of));
        }
        desk
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("it is below the desk")).expect("a folder can be made");
        fs::write(path, bytes).expect("a file can be written");
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file below the desk, hidden ones too.
    fn names(&self) -> Vec<String> {
        let files = walkdir::WalkDir::new(self.folder.path()).sort_by_file_name().into_iter();
        files
            .map(|entry| entry.expect("the desk can be walked"))
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(self.folder.path()).expect("it is below").display().to_string())
            .collect()
    }

    fn command(&self, line: &str) -> assert_cmd::Command {
        let mut command = cargo_bin_cmd!("rehydrate");
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR");
        command
    }

    /// Runs `rehydrate` with the words of `line`.
    fn run(&self, line: &str) -> Outcome {
        Outcome::of(line, self.command(line).output())
    }

    fn pipe(&self, line: &str, stdin: &[u8]) -> Outcome {
        Outcome::of(line, self.command(line).write_stdin(stdin).output())
    }
}

/// What a command said, and its exit status.
struct Outcome {
    line: String,
    status: Option<i32>,
    bytes: Vec<u8>,
    stderr: String,
}

impl Outcome {
    fn of(line: &str, output: std::io::Result<Output>) -> Self {
        let Output { status, stdout, stderr } = output.expect("rehydrate starts");
        let stderr = String::from_utf8(stderr).expect("diagnostics are text");
        Self { line: line.to_owned(), status: status.code(), bytes: stdout, stderr }
    }

    #[track_caller]
    fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}: {}{}", self.line, self.text(), self.stderr);
        self
    }

    /// Standard output is exactly this.
    #[track_caller]
    fn prints(self, text: &str) -> Self {
        assert_eq!(self.text(), text, "{}", self.line);
        self
    }

    #[track_caller]
    fn shows(self, part: &str) -> Self {
        assert!(self.text().contains(part), "{}: {part:?} is not in {}", self.line, self.text());
        self
    }

    /// Standard error is exactly this.
    #[track_caller]
    fn complains(self, text: &str) -> Self {
        assert_eq!(self.stderr, text, "{}", self.line);
        self
    }

    #[track_caller]
    fn warns(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "{}: {part:?} is not in {}", self.line, self.stderr);
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn example(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const GREETING: &str = "greeting.cpython-313.pyc";
const CLASSES: &str = "classes.cpython-313.pyc";
const TUPLE: &str = "tuple_of_issue566.cpython-313.marshal";
const DOUBLED: &str = "doubled.cpython-313.marshal";

fn cut() -> Vec<u8> {
    example(GREETING)[..100].to_vec()
}

const CUT: &str =
    "str ends early: 17 bytes needed, 12 left (at byte 0x58, in code object > co_consts > tuple > item 0)";

// What goes in, and where it comes out.

#[test]
fn compile_writes_beside_its_input_and_decompile_gives_the_identical_file_back() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.run("compile a.pyc").exits(0).shows("a.pyc -> a.pyinit (").complains("");
    assert_eq!(desk.names(), ["a.pyc", "a.pyinit"]);
    desk.put("a.pyc", b"overwritten");
    desk.run("decompile a.pyinit").exits(0).shows("a.pyinit -> a.pyc (371 of ").complains("");
    assert_eq!(desk.read("a.pyc"), example(GREETING));
    assert_eq!(desk.names(), ["a.pyc", "a.pyinit"]);
}

#[test]
fn o_names_the_output_and_makes_its_folder() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.run("compile a.pyc -o out/b").exits(0).shows("a.pyc -> out/b (");
    desk.run("decompile out/b -o back.pyc").exits(0);
    assert_eq!(desk.read("back.pyc"), example(GREETING));
    assert_eq!(desk.names(), ["a.pyc", "back.pyc", "out/b"]);
}

#[test]
fn o_dash_is_standard_output_and_says_nothing_else() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.run("compile a.pyc").exits(0);
    let compiled = desk.run("compile a.pyc -o -").exits(0).complains("");
    assert_eq!(compiled.bytes, desk.read("a.pyinit"));
    let decompiled = desk.run("decompile a.pyinit -o -").exits(0).complains("");
    assert_eq!(decompiled.bytes, example(GREETING));
}

#[test]
fn standard_input_goes_to_standard_output() {
    let desk = Desk::with(&[]);
    let compiled = desk.pipe("compile -", &example(GREETING)).exits(0).complains("").bytes;
    let decompiled = desk.pipe("decompile -", &compiled).exits(0).complains("").bytes;
    assert_eq!(decompiled, example(GREETING));
    assert_eq!(desk.names(), [""; 0]);
}

#[test]
fn every_command_takes_every_kind_of_input_from_a_file_and_from_standard_input() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("t.marshal", TUPLE)]);
    desk.run("compile a.pyc").exits(0);
    desk.run("compile t.marshal --python 3.13").exits(0);
    for command in ["run", "disasm", "show", "verify"] {
        for (file, options) in [
            ("a.pyc", ""),
            ("t.marshal", "--python 3.13"),
            ("a.pyinit", ""),
            ("t.pyinit", ""),
            ("t.pyinit", "--python 3.6"),
        ] {
            let named = desk.run(&format!("{command} {file} {options}")).exits(0).complains("");
            let piped = desk.pipe(&format!("{command} - {options}"), &desk.read(file)).exits(0).complains("");
            assert_eq!(named.text().replace(file, "<stdin>"), piped.text(), "{command} {file}");
        }
    }
}

#[test]
fn a_bare_dump_needs_to_know_its_python() {
    let desk = Desk::with(&[("t.marshal", TUPLE)]);
    for command in ["compile", "run", "disasm", "show", "normalize", "verify", "snapshot --dir s"] {
        desk.run(&format!("{command} t.marshal")).exits(1).warns("t.marshal: ").warns("--python");
    }
    desk.run("compile t.marshal --python 3.13").exits(0).shows("t.marshal -> t.pyinit");
    desk.run("decompile t.pyinit --out-dir back").exits(0).shows("t.pyinit -> back/t.marshal");
    assert_eq!(desk.read("back/t.marshal"), example(TUPLE));
    desk.run("run t.marshal --python 3.13").exits(0).prints("(1, 'a', 37.0, (2, 'foo'))\n");
}

#[test]
fn a_name_without_an_extension_of_ours_keeps_all_of_it() {
    let desk = Desk::with(&[("module.v1", GREETING)]);
    desk.run("compile module.v1").exits(0).shows("module.v1 -> module.v1.pyinit");
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_unicode_is_kept() {
    use std::os::unix::ffi::OsStrExt;

    let desk = Desk::with(&[]);
    let name = |bytes: &[u8]| desk.folder.path().join(std::ffi::OsStr::from_bytes(bytes));
    fs::write(name(b"caf\xe9.pyc"), example(GREETING)).expect("a file can be written");
    desk.run("compile .").exits(0).shows(".pyinit (");
    assert!(name(b"caf\xe9.pyinit").exists(), "{:?}", desk.names());
}

#[test]
fn out_dir_keeps_a_folders_own_name_and_structure() {
    let desk = Desk::with(&[("lib/a.pyc", GREETING), ("lib/sub/b.pyc", CLASSES), ("one/c.pyc", GREETING)]);
    desk.run("compile lib one/c.pyc --out-dir out").exits(0).complains("3 files, 3 compiled\n");
    let compiled = ["out/c.pyinit", "out/lib/a.pyinit", "out/lib/sub/b.pyinit"];
    assert_eq!(desk.names()[3..], compiled);
    desk.run("decompile out/lib --out-dir back").exits(0);
    assert_eq!(desk.read("back/lib/sub/b.pyc"), example(CLASSES));
}

#[test]
fn the_folder_dot_has_the_name_that_it_has_from_outside() {
    let desk = Desk::with(&[("lib/a.pyc", GREETING)]);
    let mut command = desk.command("compile . --out-dir ../out");
    Outcome::of("compile .", command.current_dir(desk.at("lib")).output()).exits(0);
    let mut command = desk.command("compile .. --out-dir ../up");
    Outcome::of("compile ..", command.current_dir(desk.at("lib")).output()).exits(0);
    let own_name = desk.folder.path().file_name().expect("the desk has a name").display().to_string();
    assert_eq!(desk.names(), ["lib/a.pyc", "out/lib/a.pyinit", &format!("up/{own_name}/lib/a.pyinit")]);
}

#[test]
fn a_folder_stands_for_the_files_that_the_command_takes() {
    let desk = Desk::with(&[("d/a.pyc", GREETING), ("d/t.marshal", TUPLE), ("d/notes.txt", GREETING)]);
    let all = "d/a.pyc d/t.marshal";
    for line in ["compile d --python 3.13", "compile d --python 3.13"] {
        desk.run(line).exits(0).complains("2 files, 2 compiled\n");
    }
    assert_eq!(desk.names(), ["d/a.pyc", "d/a.pyinit", "d/notes.txt", "d/t.marshal", "d/t.pyinit"]);
    for (command, done) in [("verify", "ok"), ("show", "shown"), ("disasm", "listed")] {
        desk.run(&format!("{command} d --python 3.13")).exits(0).complains(&format!("4 files, 4 {done}\n"));
    }
    desk.run("decompile d").exits(0).complains("2 files, 2 decompiled\n");
    desk.run("normalize --in-place d --python 3.13").exits(0).complains("2 files, 2 normalized\n");
    desk.run(&format!("normalize --check {all} --python 3.13")).exits(0).complains("2 files, 2 canonical\n");
}

#[test]
fn a_folder_that_has_nothing_to_work_on_is_an_error() {
    let desk = Desk::with(&[("d/notes.txt", GREETING)]);
    desk.run("compile d").exits(2).complains("error: no .pyc or .marshal file is in d\n");
    desk.run("decompile d").exits(2).complains("error: no .pyinit or .pylazy file is in d\n");
    desk.run("verify d").exits(2).complains("error: no .pyc or .marshal or .pyinit or .pylazy file is in d\n");
}

#[test]
fn two_inputs_with_one_output_are_refused_before_anything_is_written() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("a.marshal", TUPLE), ("d/a.pyc", GREETING)]);
    let before = desk.names();
    let why = "error: a.pyc and a.marshal would both be written to a.pyinit\n";
    desk.run("compile a.pyc a.marshal").exits(2).prints("").complains(why);
    desk.run("compile a.pyc ./d/../a.pyc").exits(2).warns("would both be written to ./d/../a.pyinit");
    desk.run("compile a.pyc d/a.pyc --out-dir out").exits(2).warns("would both be written to out/a.pyinit");
    desk.run("compile a.pyc d/a.pyc -o b").exits(2).complains("error: -o takes one input, and here are 2\n");
    desk.run("compile - -").exits(2).warns("standard input can be read once");
    desk.run("normalize a.pyc d/a.pyc").exits(2).warns("several inputs need --in-place or --check");
    assert_eq!(desk.names(), before);
}

// Lazy containers.

#[test]
fn compile_writes_a_lazy_container_beside_its_input_and_decompile_gives_the_identical_file_back() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    for layout in ["draft", "compact"] {
        let line = format!("compile --format lazy --lazy-layout {layout} a.pyc");
        desk.run(&line).exits(0).shows("a.pyc -> a.pylazy (").complains("");
        assert_eq!(desk.names(), ["a.pyc", "a.pylazy"]);
        desk.run("decompile a.pylazy -o b.pyc").exits(0).shows("a.pylazy -> b.pyc (371 of ");
        assert_eq!(desk.read("b.pyc"), example(GREETING), "{layout}");
        fs::remove_file(desk.at("b.pyc")).expect("it was just written");
    }
    desk.run("compile --format lazy a.pylazy").exits(1).warns("a.pylazy: is a lazy container already");
    desk.run("normalize a.pylazy -o -").exits(1).warns("decompile --canonical");
}

#[test]
fn every_command_takes_a_lazy_container() {
    let desk = Desk::with(&[("d/a.pyc", GREETING)]);
    desk.run("compile --format lazy d").exits(0);
    fs::remove_file(desk.at("d/a.pyc")).expect("it is there");
    desk.run("verify d").exits(0).prints("d/a.pylazy: ok\n");
    desk.run("disasm d/a.pylazy")
        .exits(0)
        .shows("LAZY_LOAD_CONSTANT")
        .shows("; Lazy container of Python 3.13, compact");
    desk.run("snapshot d --dir s --update").exits(0).shows("s/a.pylazy.snap: new");
    let pyc = Desk::with(&[("a.pyc", GREETING)]);
    assert_eq!(desk.run("show d/a.pylazy").exits(0).text(), pyc.run("show a.pyc").text());
    assert_eq!(
        desk.run("explain d/a.pylazy").exits(0).text().replace("d/a.pylazy", "a.pyc"),
        pyc.run("explain a.pyc").text()
    );
    assert_eq!(
        desk.run("stats d/a.pylazy").exits(0).text().replace("d/a.pylazy", "a.pyc"),
        pyc.run("stats a.pyc").text()
    );
    desk.run("run d/a.pylazy --emit pyc -o again.pyc").exits(0);
    desk.put("a.pyc", &example(GREETING));
    desk.run("diff a.pyc d/a.pylazy").exits(0);
    desk.run("diff a.pyc again.pyc").exits(1).shows("flags");
    desk.run("compile --format lazy --no-source-flags a.pyc -o b").exits(0);
    desk.run("diff a.pyc b").exits(0);
    desk.run("decompile b -o b.pyc").exits(0);
    assert_eq!(desk.read("b.pyc"), desk.read("again.pyc"));
    desk.run("decompile --canonical b -o c.pyc").exits(0);
    desk.run("normalize --check c.pyc").exits(0);
}

#[test]
fn verify_takes_files_through_the_lazy_container() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("c.pyc", CLASSES), ("t.marshal", TUPLE)]);
    for layout in ["draft", "compact"] {
        desk.run(&format!("verify --format lazy --lazy-layout {layout} a.pyc c.pyc"))
            .exits(0)
            .complains("2 files, 2 ok\n");
    }
    desk.run("verify --format lazy --python 3.13 t.marshal")
        .exits(1)
        .complains("error: t.marshal: dehydrate: a lazy container cannot hold a bare dump: it has no header that says its version\n");
    desk.run("verify --format lazy --sharing none a.pyc").exits(1).warns("--sharing none");
}

#[test]
fn a_trace_says_what_is_hydrated_when_and_by_what() {
    let desk = Desk::with(&[("p.pyc", "pair.cpython-315.pyc")]);
    desk.run("compile --format lazy p.pyc").exits(0);
    let trace = "\
code 0 <module>: partially hydrated
code 0 <module>: fully hydrated
code 1 f: partially hydrated
  constant 0: (1, 'Hi'), needed by code 1 co_consts[1]
code 1 f: fully hydrated
";
    let outcome = desk.run("run --trace p.pylazy").exits(0);
    assert!(outcome.text().starts_with(trace), "{}", outcome.text());
    assert_eq!(outcome.text()[trace.len()..], desk.run("run p.pylazy").text());
    desk.run("run --trace p.pyc").exits(1).warns("is no lazy container");
}

#[test]
fn lazy_report_says_what_is_saved() {
    let desk = Desk::with(&[("a.pyc", CLASSES)]);
    desk.put("ran.txt", b"<module>\nno.such\n\n");
    let outcome = desk.run("lazy-report a.pyc --executed ran.txt").exits(0);
    let report = outcome.text();
    outcome.complains("a.pyc: no code object is called no.such\n");
    let row = report.lines().find(|line| line.starts_with("code objects")).expect("it counts code objects").to_owned();
    assert_eq!(row.split_whitespace().nth(2), Some("1"), "{report}");
    desk.run("compile --format lazy a.pyc").exits(0);
    let piped = desk.pipe("lazy-report a.pylazy --executed - --format json", b"<module>\n").exits(0).complains("");
    let json: Value = serde_json::from_str(&piped.text()).expect("it is JSON");
    assert_eq!(json["executed"]["code_objects"], 1);
    assert!(json["executed"]["bytes"].as_u64() < json["all"]["bytes"].as_u64());
    assert_eq!(json["unknown"], serde_json::json!([]));
    desk.run("lazy-report - --executed -").exits(2).warns("- is named twice");
    desk.run("compile a.pyc").exits(0);
    desk.run("lazy-report a.pyinit --executed ran.txt").exits(1).warns("is an initializer, which is not lazy");
}

// What goes wrong.

#[test]
fn work_goes_on_past_a_bad_input() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("c.pyc", CLASSES)]);
    desk.put("b.pyc", &cut());
    let outcome = desk.run("compile a.pyc b.pyc c.pyc").exits(1);
    assert_eq!(outcome.text().lines().count(), 2);
    outcome.complains(&format!("error: b.pyc: {CUT}\n3 files, 2 compiled, 1 not\n"));
    assert_eq!(desk.names(), ["a.pyc", "a.pyinit", "b.pyc", "c.pyc", "c.pyinit"]);
    for (command, n_lines) in [("verify", 2), ("normalize --check", 2)] {
        let outcome = desk.run(&format!("{command} a.pyc b.pyc c.pyc")).exits(1).warns("error: b.pyc: ").warns(CUT);
        assert_eq!(outcome.text().lines().count(), n_lines, "{command}");
    }
    desk.run("show a.pyc b.pyc c.pyc").exits(1).shows("; a.pyc\n").shows("; c.pyc\n").warns("2 shown, 1 not");
}

#[test]
fn a_missing_file_is_a_bad_input_too_but_with_status_2() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    let missing = "error: nosuch.pyc: No such file or directory (os error 2)\n";
    desk.run("verify nosuch.pyc a.pyc")
        .exits(2)
        .prints("a.pyc: ok\n")
        .complains(&format!("{missing}2 files, 1 ok, 1 not\n"));
    for command in ["compile", "decompile", "run", "disasm", "asm", "show", "normalize --check", "verify"] {
        desk.run(&format!("{command} nosuch.pyc")).exits(2).complains(missing);
    }
    assert_eq!(desk.names(), ["a.pyc"]);
}

#[test]
fn a_failed_run_leaves_the_old_file_and_nothing_half_written() {
    let desk = Desk::with(&[("good.pyc", GREETING)]);
    desk.put("b.pyc", &cut());
    desk.put("b.pyinit", b"old");
    for line in ["compile b.pyc", "compile b.pyc -o b.pyinit", "run b.pyc --emit marshal -o b.pyinit"] {
        desk.run(line).exits(1);
    }
    for line in ["normalize b.pyc -o b.pyinit", "normalize --in-place b.pyc", "decompile b.pyinit", "asm b.pyinit"] {
        desk.run(line).exits(1);
    }
    desk.run("compile good.pyc -o good.pyc/inside").exits(2).warns("error: good.pyc/inside: ");
    assert_eq!(desk.names(), ["b.pyc", "b.pyinit", "good.pyc"]);
    assert_eq!((desk.read("b.pyinit"), desk.read("b.pyc")), (b"old".to_vec(), cut()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    for line in ["compile a.pyc -o /dev/full", "run a.pyc -o /dev/full"] {
        desk.run(line).exits(2).complains("error: /dev/full: No space left on device (os error 28)\n");
    }
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rehydrate"));
    let full = fs::File::options().write(true).open("/dev/full").expect("there is a /dev/full");
    Outcome::of("isa", command.arg("isa").stdout(full).stderr(std::process::Stdio::piped()).output())
        .exits(2)
        .complains("error: <stdout>: No space left on device (os error 28)\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("b.pyc", CLASSES)]);
    for line in ["isa", "show a.pyc b.pyc", "run a.pyc", "compile a.pyc -o -", "compile a.pyc b.pyc", "--help"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rehydrate"));
        command.current_dir(desk.folder.path()).args(line.split_whitespace());
        Outcome::of(line, command.stdout(writer).stderr(std::process::Stdio::piped()).output()).exits(0).complains("");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    for (line, why) in [
        ("", "Usage: rehydrate <COMMAND>"),
        ("nosuch", "unrecognized subcommand 'nosuch'"),
        ("compile", "<INPUT>..."),
        ("compile a.pyc -o b --out-dir c", "cannot be used with"),
        ("compile a.pyc --jobs 0", "'0' for '--jobs <N>'"),
        ("compile a.pyc --sharing some", "[possible values: structural, identity, none]"),
        ("show a.pyc --python 2.7", "no Python version: \"2.7\"; supported are 3.6 to 3.15"),
        ("normalize a.pyc --check --in-place", "cannot be used with"),
        ("compile a.pyc --lazy-layout draft", "error: --lazy-layout goes with --format lazy"),
        ("verify a.pyc --lazy-layout compact", "error: --lazy-layout goes with --format lazy"),
        ("normalize - --in-place", "standard input cannot be replaced"),
        ("isa extra", "unexpected argument 'extra'"),
    ] {
        desk.run(line).exits(2).prints("").warns(why);
    }
}

#[test]
fn a_command_says_what_it_was_given_instead() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("t.marshal", TUPLE)]);
    desk.run("compile a.pyc").exits(0);
    desk.run("compile a.pyinit -o b").exits(1).complains("error: a.pyinit: is an initializer already\n");
    desk.run("decompile a.pyc").exits(1).complains("error: a.pyc: is a marshal dump already\n");
    desk.run("normalize a.pyinit").exits(1).warns("decompile --canonical");
    desk.run("run t.marshal --python 3.13 --emit pyc").exits(1).warns("t.marshal: a bare dump has no .pyc header");
    desk.run("compile t.marshal --python 3.13 --start-code").exits(1).warns("START_CODE needs a code object");
    fs::create_dir(desk.at("d")).expect("a folder can be made");
    for command in ["run", "asm"] {
        desk.run(&format!("{command} d")).exits(2).complains("error: d: Is a directory (os error 21)\n");
    }
}

#[test]
fn an_unknown_magic_number_is_refused_by_name() {
    let desk = Desk::with(&[]);
    for (magic, why) in [(62211_u16, "magic number 62211 is Python 2, older than 3.6"), (3180, "Python 3.2")] {
        desk.put("a.pyc", &[&magic.to_le_bytes(), b"\r\n0123456789abN".as_slice()].concat());
        desk.run("compile a.pyc").exits(1).warns("error: a.pyc: ").warns(why);
    }
    for file in [b"".as_slice(), b"import this\n", b"\xff\xff\r\n0123456789abN"] {
        desk.pipe("compile -", file).exits(1).warns("error: <stdin>: not a .pyc or .pyinit file");
    }
}

#[test]
fn a_damaged_file_is_refused_with_the_place() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.put("cut.pyc", &cut());
    desk.run("show cut.pyc").exits(1).prints("").complains(&format!("error: cut.pyc: {CUT}\n"));
    desk.run("verify cut.pyc").exits(1).prints("").complains(&format!("error: cut.pyc: read: {CUT}\n"));
    desk.run("compile a.pyc").exits(0);
    let mut initializer = desk.read("a.pyinit");
    initializer.pop();
    desk.put("a.pyinit", &initializer);
    for command in ["verify", "run", "disasm", "show", "decompile"] {
        desk.run(&format!("{command} a.pyinit")).exits(1).prints("").warns("error: a.pyinit: ").warns(" (at byte 0x");
    }
}

// Replacing files.

#[cfg(unix)]
#[test]
fn in_place_keeps_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let desk = Desk::with(&[("real/a.pyc", GREETING)]);
    fs::set_permissions(desk.at("real/a.pyc"), fs::Permissions::from_mode(0o640)).expect("it is our file");
    symlink("real/a.pyc", desk.at("link.pyc")).expect("links can be made");
    desk.run("normalize --in-place link.pyc").exits(0).shows("link.pyc: replaced (");
    assert!(desk.at("link.pyc").is_symlink());
    let metadata = fs::metadata(desk.at("real/a.pyc")).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    assert_ne!(desk.read("real/a.pyc"), example(GREETING));
    assert_eq!(desk.names(), ["link.pyc", "real/a.pyc"]);
}

#[cfg(unix)]
#[test]
fn a_new_file_has_the_permissions_of_what_it_was_made_of() {
    use std::os::unix::fs::PermissionsExt;

    let desk = Desk::with(&[("a.pyc", GREETING)]);
    let mode = |name| fs::metadata(desk.at(name)).expect("it is there").permissions().mode() & 0o777;
    // As any new file.
    desk.run("compile a.pyc").exits(0);
    assert_eq!(mode("a.pyinit"), mode("a.pyc"));
    // Who may not read the one may not read the other, and it can be written again. It is nothing to execute.
    for (given, wanted) in [(0o600, 0o600), (0o400, 0o600), (0o700, 0o600)] {
        fs::set_permissions(desk.at("a.pyc"), fs::Permissions::from_mode(given)).expect("it is our file");
        desk.run("compile a.pyc -o private.pyinit").exits(0);
        desk.run("decompile private.pyinit -o back.pyc").exits(0);
        assert_eq!((mode("private.pyinit"), mode("back.pyc")), (wanted, wanted));
        fs::remove_file(desk.at("private.pyinit")).expect("it is there");
        fs::remove_file(desk.at("back.pyc")).expect("it is there");
    }
    // What is there already keeps its own.
    fs::set_permissions(desk.at("a.pyinit"), fs::Permissions::from_mode(0o640)).expect("it is our file");
    desk.run("compile a.pyc").exits(0);
    assert_eq!(mode("a.pyinit"), 0o640);
    // A file of the name that stands for standard input says nothing of it.
    desk.put("-", b"");
    fs::set_permissions(desk.at("-"), fs::Permissions::from_mode(0o600)).expect("it is our file");
    desk.put("any", b"");
    desk.pipe("compile - -o piped.pyinit", &desk.read("a.pyc")).exits(0);
    assert_eq!(mode("piped.pyinit"), mode("any"));
}

#[test]
fn normalizing_twice_changes_nothing_more() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("b.pyc", CLASSES)]);
    desk.run("normalize --in-place .").exits(0).complains("2 files, 2 normalized\n");
    let once = [desk.read("a.pyc"), desk.read("b.pyc")];
    desk.run("normalize --in-place .").exits(0).prints("./a.pyc: unchanged\n./b.pyc: unchanged\n");
    assert_eq!([desk.read("a.pyc"), desk.read("b.pyc")], once);
    let piped = desk.pipe("normalize -", &once[0]).exits(0).complains("");
    assert_eq!(piped.bytes, once[0]);
    assert_eq!(once[0][..16], example(GREETING)[..16], "the header stays");
}

#[test]
fn check_says_what_would_change_and_changes_nothing() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("b.pyc", GREETING)]);
    desk.run("normalize --in-place a.pyc").exits(0);
    desk.run("normalize --check .")
        .exits(1)
        .prints("./a.pyc: canonical\n./b.pyc: would change\n")
        .complains("2 files, 1 canonical, 1 not\n");
    assert_eq!(desk.read("b.pyc"), example(GREETING));
    desk.run("normalize --check a.pyc").exits(0).prints("a.pyc: canonical\n").complains("");
    desk.pipe("normalize --check -", &example(GREETING)).exits(1).prints("<stdin>: would change\n");
}

#[test]
fn a_canonical_decompile_is_what_normalize_writes() {
    let desk = Desk::with(&[("a.pyc", CLASSES)]);
    desk.run("compile a.pyc --no-source-flags").exits(0);
    desk.run("decompile a.pyinit -o b.pyc").exits(1).warns("--canonical");
    desk.run("decompile a.pyinit --canonical -o b.pyc").exits(0);
    desk.run("normalize a.pyc -o c.pyc").exits(0);
    assert_eq!(desk.read("b.pyc"), desk.read("c.pyc"));
}

// What is printed.

#[test]
fn output_does_not_depend_on_the_number_of_jobs() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).expect("the examples are there");
    let names: Vec<String> =
        files.map(|entry| entry.expect("a file").file_name().into_string().expect("ASCII")).collect();
    let pyc: Vec<_> =
        names.iter().filter(|name| name.ends_with(".pyc")).map(|name| (name.as_str(), name.as_str())).collect();
    let desk = Desk::with(&pyc);
    desk.put("bad.pyc", &cut());
    for command in ["verify", "show --format json", "compile"] {
        let one = desk.run(&format!("{command} . --jobs 1")).exits(1);
        let two = desk.run(&format!("{command} . --jobs 2")).exits(1);
        assert_eq!((one.bytes, one.stderr), (two.bytes, two.stderr), "{command}");
    }
}

#[test]
fn nothing_is_coloured_and_no_progress_shown_without_a_terminal() {
    let desk = Desk::with(&[("a.pyc", GREETING), ("b.pyc", GREETING)]);
    for line in
        ["verify a.pyc b.pyc nosuch", "--help", "compile --help", "isa", "run a.pyc", "disasm a.pyc", "show a.pyc"]
    {
        let outcome = desk.run(line);
        assert!(!outcome.text().contains('\x1b') && !outcome.stderr.contains(['\x1b', '\r']), "{line}");
    }
}

#[test]
fn colour_can_be_forced_and_forbidden() {
    let desk = Desk::with(&[]);
    let forced = desk.command("show nosuch").env("CLICOLOR_FORCE", "1").output();
    Outcome::of("CLICOLOR_FORCE", forced).exits(2).warns("\x1b[1m\x1b[31merror:\x1b[0m nosuch: ");
    let forbidden = desk.command("show nosuch").env("NO_COLOR", "1").output();
    Outcome::of("NO_COLOR", forbidden).exits(2).warns("error: nosuch: ");
}

#[test]
fn a_value_of_2_to_the_60_paths_is_run_and_shown_by_id() {
    let desk = Desk::with(&[("d.marshal", DOUBLED)]);
    let shown = desk.run("run d.marshal --python 3.13").exits(0).complains("").text();
    assert!(shown.starts_with("(o"), "{shown}");
    assert!(shown.lines().count() <= 64, "{shown}");
    desk.run("run d.marshal --python 3.13 --sharing none").exits(1).warns("exceeds its budget of ");
}

#[test]
fn start_code_says_that_it_would_be_started() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.run("compile a.pyc --start-code").exits(0);
    desk.run("run a.pyinit")
        .exits(0)
        .shows("co_name='<module>'")
        .complains("START_CODE would now execute this code object as the module's code\n");
    desk.run("decompile a.pyinit -o b.pyc").exits(0);
    assert_eq!(desk.read("b.pyc"), example(GREETING));
}

#[test]
fn run_emits_dumps_that_hold_the_same_objects() {
    let desk = Desk::with(&[("a.pyc", CLASSES)]);
    desk.run("run a.pyc --emit pyc -o b.pyc").exits(0).prints("");
    assert_eq!(desk.run("run b.pyc").exits(0).text(), desk.run("run a.pyc").exits(0).text());
    let marshal = desk.run("run a.pyc --emit marshal").exits(0).bytes;
    assert_eq!(marshal, desk.read("b.pyc")[16..]);
}

#[test]
fn a_listing_can_be_edited_and_assembled() {
    let desk = Desk::with(&[("a.pyc", GREETING)]);
    desk.run("compile a.pyc").exits(0);
    let listing = desk.run("disasm a.pyinit").exits(0).text();
    desk.put("same.txt", listing.as_bytes());
    desk.run("asm same.txt -o same.pyinit").exits(0).shows("same.txt -> same.pyinit (");
    assert_eq!(desk.read("same.pyinit"), desk.read("a.pyinit"));
    desk.put("edited.txt", listing.replace("'Hello, '", "'Bonjour, '").as_bytes());
    desk.run("asm edited.txt -o edited.pyinit").exits(0);
    desk.run("run edited.pyinit").exits(0).shows("co_consts=('Return a greeting for name.', 'Bonjour, ', '!')");
    let piped = desk.pipe("asm -", listing.as_bytes()).exits(0).complains("");
    assert_eq!(piped.bytes, desk.read("a.pyinit"));
    desk.pipe("asm -", b".python 3.13\n  0  LOAD_NOTHING\n").exits(1).warns("error: <stdin>: line 2: ");
}

#[test]
fn every_json_output_parses() {
    let desk = Desk::with(&[("a.pyc", CLASSES), ("b.pyc", GREETING)]);
    desk.run("compile b.pyc").exits(0);
    for (line, key) in [("isa --format json", "instructions"), ("run a.pyc --emit json", "objects")] {
        let text = desk.run(line).exits(0).text();
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(json.get(key).is_some(), "{line}: {text}");
    }
    for (command, key) in [("disasm", "instructions"), ("show", "rows")] {
        let text = desk.run(&format!("{command} a.pyc b.pyc b.pyinit --format json")).exits(0).text();
        let documents: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{command}: {error}: {line}")))
            .collect();
        let inputs: Vec<_> = documents.iter().map(|json| json["input"].as_str()).collect();
        assert_eq!(inputs, [Some("a.pyc"), Some("b.pyc"), Some("b.pyinit")], "{command}");
        assert!(documents.iter().all(|json| json[key].is_array()), "{command}: {text}");
    }
}

#[test]
fn the_instruction_set_prints_in_every_format() {
    let desk = Desk::with(&[]);
    for (format, part) in [("text", "START_CODE"), ("markdown", "| `START_CODE` |"), ("c", "START_CODE")] {
        desk.run(&format!("isa --format {format}")).exits(0).shows(part).complains("");
    }
}

#[test]
fn help_has_examples_and_says_what_the_exit_status_means() {
    let desk = Desk::with(&[]);
    let commands = commands(&desk);
    assert!(commands.len() >= 9, "{commands:?}");
    for command in [""].into_iter().chain(commands.iter().map(String::as_str)) {
        let help = desk.run(&format!("{command} --help")).exits(0).complains("").text();
        let (_, after) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(after.starts_with("  rehydrate ") && after.contains("\nExit status:\n  0  "), "{command}: {help}");
        // What is laid out by hand must not be broken again by a terminal of 80 columns.
        assert!(after.lines().all(|line| line.len() <= 80), "{command}: {after}");
    }
}

#[test]
fn the_list_of_commands_takes_a_line_each() {
    let desk = Desk::with(&[]);
    let help = desk.run("--help").text();
    for command in commands(&desk) {
        let line = help.lines().find(|line| line.starts_with(&format!("  {command} ")));
        assert!(line.is_some_and(|line| line.len() <= 80), "{command}: {help}");
    }
}

/// The names of the commands, as help lists them.
fn commands(desk: &Desk) -> Vec<String> {
    let help = desk.run("--help").text();
    let (_, list) = help.split_once("\nCommands:\n").expect("there are commands");
    let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_version_is_printed() {
    let desk = Desk::with(&[]);
    desk.run("--version").exits(0).prints(concat!("rehydrate ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn every_way_to_compile_passes_every_check() {
    let desk = Desk::with(&[("a.pyc", CLASSES)]);
    for options in [
        "",
        "--sharing identity",
        "--sharing none",
        "--profile core",
        "--profile load",
        "--profile load --strip-caches",
        "--keep-caches",
        "--optimize size",
        "--start-code",
        "--no-source-flags",
    ] {
        desk.run(&format!("verify a.pyc {options}")).exits(0).prints("a.pyc: ok\n");
        desk.run(&format!("compile a.pyc {options} -o b.pyinit")).exits(0);
        desk.run("verify b.pyinit").exits(0).prints("b.pyinit: ok\n");
    }
}

#[test]
fn a_bundle_is_made_shown_listed_and_verified() {
    let desk = Desk::with(&[
        ("app/__pycache__/greeting.cpython-315.pyc", "greeting-unchecked.cpython-313.pyc"),
        ("app/__pycache__/pair.cpython-313.pyc", "greeting-unchecked.cpython-313.pyc"),
        ("app/__pycache__/greeting.cpython-313.pyc", "greeting-checked.cpython-313.pyc"),
    ]);
    desk.put("app/greeting.py", b"");
    desk.put("app/pair.py", b"");
    desk.put("app/lone.py", b"");
    desk.put("app/fast.abi3.so", b"");
    let several = desk.run("bundle app -o app.pybundle").exits(2);
    several.complains("error: there are .pyc of cpython-313, cpython-315: say which with --python\n");
    let made = desk.run("bundle app -o app.pybundle --python 3.13").exits(1).text();
    assert_eq!(made, "");
    let shown = desk.run("show app.pybundle").exits(0).complains("").text();
    assert!(
        shown.starts_with("; app.pybundle: bundle of Python 3.13, level of optimization 0, checked: 3 modules;"),
        "{shown}"
    );
    assert!(shown.ends_with("pair.py in app\n"), "{shown}");
    assert!(shown.contains("\nfast      extension         0  fast.abi3.so in app\n"), "{shown}");
    desk.run("show app.pybundle --format json")
        .exits(0)
        .shows("\"modules\":[{\"name\":\"fast\",\"package\":false,\"extension\":true,");
    desk.run("disasm app.pybundle --module pair").exits(0).shows("LOAD_MANY_NAMES");
    desk.run("disasm app.pybundle").exits(0).shows("BUILD_TUPLE_NEAR");
    desk.run("disasm app.pybundle --module other").exits(1);
    desk.run("disasm app.pybundle --module fast")
        .exits(1)
        .warns("app.pybundle: an extension module has no initializer in the bundle");
    desk.run("verify app.pybundle").exits(0).shows("app.pybundle: ok");
    desk.run("decompile app.pybundle").exits(1);
    desk.run("bundle app/lone.py -o lone.pybundle").exits(2);
    desk.run("bundle app/fast.abi3.so -o lone.pybundle")
        .exits(2)
        .complains("error: no source of a module is in app/fast.abi3.so\n");
    desk.run("bundle app/lone.py -o lone.pybundle --python 3.12").exits(1).warns("none of the modules can be bundled");
    desk.run("bundle app/__pycache__ -o lone.pybundle")
        .exits(2)
        .complains("error: no source of a module is in app/__pycache__\n");
    desk.put("none/lone.py", b"");
    desk.run("bundle none -o lone.pybundle").exits(1).warns("error: no .pyc is there: compile first");
    assert!(!desk.names().contains(&"lone.pybundle".to_owned()));
}
