//! Asks the real CPythons of this machine what they make of our dumps.
//!
//! The scripts that they run stand in tests/cpython.

// The script that compiles forks.
#![cfg(unix)]

mod common;

use std::env;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use common::{Example, SHARINGS, announce, at_root, examples, interpreters, lazy_ways, options, refused, text_of};
use rayon::prelude::*;
use rehydrate::lazy::{Container, Report};
use rehydrate::listing::TableData;
use rehydrate::python::{Field, KindCounts, count_kinds};
use rehydrate::{
    End, ErrorKind, Initializer, Input, LazyOptions, Options, Profile, Python, Sharing, Source, check, check_lazy,
    marshal,
};
use tempfile::TempDir;

/// Those that every version has, or most do; none that an interpreter imports when it starts, for then the name of a
/// nested class is interned before it is compiled, and its dump is not of the canonical kind (DESIGN.md says why).
const MODULES: &str = "argparse,ast,asyncio/base_events,asyncio/events,asyncio/streams,asyncio/tasks,base64,calendar,\
    collections/__init__,concurrent/futures/_base,configparser,contextlib,copy,csv,ctypes/__init__,dataclasses,datetime,\
    _pydecimal,decimal,difflib,dis,doctest,email/_header_value_parser,email/header,email/message,email/policy,enum,fractions,\
    ftplib,functools,gzip,html/entities,html/parser,http/client,http/cookiejar,imaplib,inspect,ipaddress,json/decoder,\
    json/encoder,logging/__init__,logging/config,mailbox,multiprocessing/managers,pathlib,pdb,pickle,pickletools,plistlib,\
    pydoc,random,shutil,smtplib,socket,ssl,statistics,string,subprocess,tarfile,tempfile,threading,turtle,typing,\
    unittest/case,unittest/mock,urllib/parse,urllib/request,uuid,weakref,xml/dom/minidom,zipfile";
/// A handful of them, with classes, closures, many names and many constants.
const FEW_MODULES: &str =
    "ast,contextlib,decimal,_pydecimal,html/entities,inspect,json/decoder,pickletools,turtle,typing";
const OTHER_IMPORTS: &str = "json,typing,enum,decimal,unittest.mock,email.message,http.client,logging.config,pickle";

/// A CPython, and what it is asked.
struct Interpreter {
    program: PathBuf,
    python: Python,
}

static INTERPRETERS: LazyLock<Vec<Interpreter>> = LazyLock::new(|| {
    let found: Vec<Interpreter> =
        interpreters().into_iter().map(|(program, python)| Interpreter { program, python }).collect();
    let versions: Vec<_> = found.iter().map(|interpreter| interpreter.python.to_string()).collect();
    match versions.is_empty() {
        true => announce("NO CPYTHON WAS ASKED: no python3 on the PATH, none in REHYDRATE_PYTHONS"),
        false => announce(&format!("asking CPython {}", versions.join(", "))),
    };
    found
});

/// What to judge: see judge.py.
struct Question {
    mode: &'static str,
    left: PathBuf,
    right: PathBuf,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}", self.mode, self.left.display(), self.right.display())
    }
}

impl Interpreter {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PYTHON")) {
            command.env_remove(name);
        }
        command.arg("-B");
        command
    }

    /// Compiles modules into a new folder.
    fn compile(&self, modules: &str, folder: &Path, hash_seed: &str, imports: Option<&str>) {
        let mut command = self.command();
        command.arg("-S").arg(at_root("tests/cpython/compile.py")).arg(folder).arg(modules).args(imports);
        let output = command.env("PYTHONHASHSEED", hash_seed).output().expect("it started before");
        assert!(output.status.success(), "{}: {}", self.python, String::from_utf8_lossy(&output.stderr));
    }

    /// What judge.py answers.
    fn answers(&self, questions: &[Question]) -> Vec<String> {
        let asked: String = questions.iter().map(|question| format!("{question}\n")).collect();
        let mut command = self.command();
        command.arg(at_root("tests/cpython/judge.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut judge = command.spawn().expect("it started before");
        let mut stdin = judge.stdin.take().expect("it is piped");
        let asking = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
        let output = judge.wait_with_output().expect("it can be waited for");
        asking.join().expect("it does not panic").expect("the judge reads on");
        let answers = String::from_utf8(output.stdout).expect("answers are ASCII");
        let answers: Vec<String> = answers.lines().map(str::to_owned).collect();
        if let Some(unanswered) = questions.get(answers.len()) {
            panic!("CPython {} ended at {unanswered}: {}", self.python, output.status);
        }
        answers
    }

    fn judge(&self, questions: &[Question]) {
        let answers = self.answers(questions);
        let wrong = questions.iter().zip(&answers).filter(|(_, answer)| *answer != "same");
        let wrong: Vec<String> = wrong.map(|(question, answer)| format!("{question}\n  {answer}")).collect();
        assert!(wrong.is_empty(), "CPython {}:\n{}", self.python, wrong.join("\n"));
    }

    /// What a .pyc prints when it is executed.
    fn execute(&self, pyc: &Path) -> Vec<u8> {
        let output = self.command().arg(pyc).output().expect("it started before");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "CPython {}: {}: {complaint}", self.python, pyc.display());
        output.stdout
    }

    /// The examples of this version that `wanted` picks.
    fn own(&self, examples: Vec<Example>, wanted: fn(&Example) -> bool) -> Vec<Example> {
        examples.into_iter().filter(|example| example.python == self.python && wanted(example)).collect()
    }
}

/// A folder for the files of one interpreter.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a file can be written");
        path
    }
}

fn source(file: &[u8], python: Python) -> Source<'_> {
    match Input::read(file, Some(python)) {
        Ok(Input::Source(source)) => source,
        other => panic!("not a dump: {other:?}"),
    }
}

fn canonical(source: &Source<'_>) -> Vec<u8> {
    let header = source.header.map_or(&[][..], |header| header.bytes());
    let dump = rehydrate::write_canonical(&source.dump.heap, source.dump.root).expect("it can be written");
    [header, &dump].concat()
}

/// Compiles, and gives what decompiling and what running the initializer makes.
fn compiled(source: &Source<'_>, sharing: Sharing) -> (Vec<u8>, Vec<u8>) {
    let initializer = rehydrate::compile(source, options(sharing, true, End::Return)).expect("it compiles");
    let file = initializer.encode().expect("it is encoded");
    let initializer = Initializer::read(&file).expect("it is decoded");
    let decompiled = rehydrate::decompile(initializer.clone()).expect("it is turned back");
    let header = initializer.header_bytes();
    let verified = rehydrate::verify(initializer.image).expect("it is verified");
    let (heap, root) = rehydrate::run(&verified);
    (decompiled, [header, &marshal::write(&heap, root).expect("it can be written")].concat())
}

/// What must agree, for judge.py, of what running gives.
fn mode(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Structural => "merged",
        Sharing::Identity => "exact",
        Sharing::None => "value",
    }
}

/// A mode, two dumps, and whether they are the same.
type Case = (&'static str, &'static [u8], &'static [u8], bool);

/// A judge that never says no would be worth nothing.
#[test]
fn the_judge_tells_dumps_apart() {
    const ONE: &[u8] = b"i\x01\0\0\0";
    const SPLIT: &[u8] = b")\x02)\x01i\x01\0\0\0)\x01i\x01\0\0\0";
    const SHARED: &[u8] = b")\x02\xa9\x01i\x01\0\0\0r\0\0\0\0";
    const LISTS: &[u8] = b")\x02[\0\0\0\0[\0\0\0\0";
    const LIST: &[u8] = b")\x02\xdb\0\0\0\0r\0\0\0\0";
    let cases: [Case; 9] = [
        ("value", ONE, b"T", false),
        ("value", b"g\0\0\0\0\0\0\0\0", b"g\0\0\0\0\0\0\0\x80", false),
        ("value", SHARED, SPLIT, true),
        ("merged", SPLIT, SHARED, true),
        ("merged", SHARED, SPLIT, false),
        ("exact", SPLIT, SHARED, false),
        ("exact", SHARED, SPLIT, false),
        ("value", LIST, LISTS, false),
        ("refuse", b"Q", ONE, false),
    ];
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let ask = |(n, (mode, left, right, _)): (usize, &Case)| {
            let (left, right) = (desk.put(&format!("{n}.left"), left), desk.put(&format!("{n}.right"), right));
            Question { mode, left, right }
        };
        let questions: Vec<Question> = cases.iter().enumerate().map(ask).collect();
        let answers: Vec<bool> = interpreter.answers(&questions).iter().map(|answer| answer == "same").collect();
        assert_eq!(answers, cases.map(|(.., same)| same), "CPython {}", interpreter.python);
    });
}

#[test]
fn the_standard_library_survives_every_stage() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let (first, other) = (desk.0.path().join("first"), desk.0.path().join("other"));
        interpreter.compile(MODULES, &first, "1", None);
        interpreter.compile(MODULES, &other, "2", Some(OTHER_IMPORTS));
        let mut modules: Vec<_> = MODULES
            .split(',')
            .map(|module| module.replace('/', "."))
            .filter(|module| first.join(format!("{module}.pyc")).exists())
            .collect();
        modules.sort();
        assert!(modules.len() >= 60, "CPython {} compiled only {modules:?}", interpreter.python);
        let questions: Vec<Question> =
            modules.par_iter().flat_map(|module| module_survives(interpreter, &desk, &first, &other, module)).collect();
        interpreter.judge(&questions);
    });
}

fn module_survives(interpreter: &Interpreter, desk: &Desk, first: &Path, other: &Path, module: &str) -> Vec<Question> {
    let python = interpreter.python;
    let read = |folder: &Path, extension: &str| {
        fs::read(folder.join(format!("{module}.{extension}"))).expect("the interpreter wrote it")
    };
    let path = first.join(format!("{module}.pyc"));
    let file = read(first, "pyc");
    let dump = source(&file, python);
    let mut questions = Vec::new();
    for sharing in SHARINGS {
        check(&file, None, options(sharing, true, End::Return))
            .unwrap_or_else(|error| panic!("CPython {python}: {module}, {sharing:?}: {error}"));
        let (decompiled, rerun) = compiled(&dump, sharing);
        assert!(decompiled == file, "CPython {python}: {module} is turned back into another file");
        let right = desk.put(&format!("{module}.{sharing:?}.pyc"), &rerun);
        questions.push(Question { mode: mode(sharing), left: path.clone(), right });
    }
    let bytes = canonical(&dump);
    for (folder, extension) in [(first, "again"), (other, "pyc"), (other, "again")] {
        let file = read(folder, extension);
        let found = canonical(&source(&file, python));
        let start = if extension == "pyc" { 0 } else { python.header_len() };
        assert!(
            found == bytes[start..],
            "CPython {python}: another canonical form of {}/{module}.{extension}",
            folder.display()
        );
    }
    let right = desk.put(&format!("{module}.canonical.pyc"), &bytes);
    questions.push(Question { mode: "merged", left: path, right });
    questions
}

#[test]
fn lazy_containers_turn_back_into_what_cpython_loads_alike() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let folder = desk.0.path().join("modules");
        interpreter.compile(FEW_MODULES, &folder, "1", None);
        let mut questions = Vec::new();
        for module in FEW_MODULES.split(',').map(|module| module.replace('/', ".")) {
            let path = folder.join(format!("{module}.pyc"));
            let Ok(file) = fs::read(&path) else { continue };
            let dump = source(&file, interpreter.python);
            for (number, way) in lazy_ways(false).into_iter().enumerate() {
                let container = rehydrate::dehydrate(&dump, way).expect("it is a module");
                let container = Container::open(&container).expect("it was just written");
                let turned_back = rehydrate::turn_back(&container).expect("it can be written");
                let right = desk.put(&format!("{module}.{number}.pyc"), &turned_back);
                questions.push(Question { mode: mode(way.sharing), left: path.clone(), right });
            }
            for way in lazy_ways(true) {
                check_lazy(&file, None, way).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
        assert!(questions.len() >= 6 * 8, "CPython {} compiled too few modules", interpreter.python);
        interpreter.judge(&questions);
    });
}

#[test]
fn rewritten_opcodes_are_those_that_the_interpreters_have() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let mut command = interpreter.command();
        command.arg(at_root("tools/lazy_opcodes.py")).arg(desk.0.path()).arg(&interpreter.program);
        let output = command.output().expect("it started before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for name in ["lazy_opcodes.tsv", "opcode_names.tsv"] {
            let found = fs::read_to_string(desk.0.path().join(name)).expect("the script wrote it");
            let data = text_of(&format!("data/{name}"));
            let version = format!("{}\t", interpreter.python);
            let wanted: Vec<_> = data.lines().filter(|line| line.starts_with(&version)).collect();
            assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), wanted, "CPython {}", interpreter.python);
        }
    });
}

#[test]
fn what_is_recorded_of_an_import_names_code_objects() {
    let first = Python::new(8).expect("a version");
    for interpreter in INTERPRETERS.iter().filter(|interpreter| interpreter.python >= first) {
        let desk = Desk::new();
        let folder = desk.0.path().join("modules");
        interpreter.compile("textwrap", &folder, "1", None);
        let mut command = interpreter.command();
        command.arg(at_root("examples/record_executed.py")).args(["textwrap", "m.dedent(' a'); m.fill('a b', 2)"]);
        let output = command.output().expect("it started before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let recorded = String::from_utf8(output.stdout).expect("names are ASCII");
        let names: Vec<&str> = recorded.lines().collect();
        for wanted in ["<module>", "TextWrapper", "dedent", "TextWrapper.__init__", "TextWrapper._split_chunks"] {
            assert!(names.contains(&wanted), "CPython {}: {names:?}", interpreter.python);
        }
        assert!(!names.contains(&"indent"), "CPython {}: {names:?}", interpreter.python);
        let file = fs::read(folder.join("textwrap.pyc")).expect("the interpreter wrote it");
        let container = rehydrate::dehydrate(&source(&file, interpreter.python), LazyOptions::default());
        let container = container.expect("it is a module");
        let report = Report::new(&Container::open(&container).expect("it was just written"), names.iter().copied());
        let report = report.expect("it is whole");
        assert_eq!(report.unknown(), [""; 0], "CPython {}", interpreter.python);
        assert_eq!(report.json()["executed"]["code_objects"], names.len(), "CPython {}", interpreter.python);
    }
}

#[test]
fn dumps_made_by_hand_load_as_what_we_write_of_them() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let mut questions = Vec::new();
        let loadable = |example: &Example| example.is_dump() && !example.name.starts_with("set_in_tuple_crash");
        for example in interpreter.own(examples(), loadable) {
            let dump = source(&example.file, interpreter.python);
            let left = desk.put(&example.name, &example.file);
            let (heap, root) = (&dump.dump.heap, dump.dump.root);
            let written = [
                ("exact", "plain", marshal::write(heap, root)),
                ("merged", "canonical", rehydrate::write_canonical(heap, root)),
            ];
            for (mode, how, written) in written {
                let bytes = match written {
                    Ok(bytes) => bytes,
                    // Nothing of it can be built first, so no objects are made to be written canonically.
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::ImmutableCycle(_)), "{}: {error}", example.name);
                        assert!(example.name.starts_with("tuple_in_itself") && how == "canonical", "{}", example.name);
                        continue;
                    }
                };
                let right = desk.put(&format!("{}.{how}", example.name), &bytes);
                questions.push(Question { mode, left: left.clone(), right });
            }
        }
        interpreter.judge(&questions);
    });
}

#[test]
fn what_we_refuse_is_refused() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        let mut questions = Vec::new();
        for example in interpreter.own(refused(), Example::is_dump) {
            assert!(Input::read(&example.file, Some(interpreter.python)).is_err(), "{} is read", example.name);
            let left = desk.put(&example.name, &example.file);
            questions.push(Question { mode: "refuse", right: left.clone(), left });
        }
        interpreter.judge(&questions);
    });
}

#[test]
fn rewritten_programs_print_what_they_printed() {
    INTERPRETERS.par_iter().for_each(|interpreter| {
        let desk = Desk::new();
        // Erg's headers are not always those of the version.
        let programs = interpreter.own(examples(), |example| !example.is_dump() && !example.name.starts_with("erg"));
        for program in programs {
            let dump = source(&program.file, interpreter.python);
            let run =
                |kind: &str, file: &[u8]| interpreter.execute(&desk.put(&format!("{kind}.{}", program.name), file));
            let printed = run("original", &program.file);
            if program.name.starts_with("greeting") {
                assert_eq!(printed, b"Hello, world!\n");
            }
            assert_eq!(run("normalized", &canonical(&dump)), printed);
            for sharing in SHARINGS {
                let (decompiled, rerun) = compiled(&dump, sharing);
                assert_eq!(run("decompiled", &decompiled), printed);
                assert_eq!(run("rerun", &rerun), printed);
            }
            for way in lazy_ways(false) {
                let container = rehydrate::dehydrate(&dump, way).expect("it is a module");
                let container = Container::open(&container).expect("it was just written");
                assert_eq!(run("lazy", &rehydrate::turn_back(&container).expect("it can be written")), printed);
            }
        }
    });
}

#[test]
fn what_is_derived_of_code_objects_is_what_cpython_derives() {
    let first = Python::new(11).expect("a version");
    for interpreter in INTERPRETERS.iter().filter(|interpreter| interpreter.python >= first) {
        let desk = Desk::new();
        let mut command = interpreter.command();
        command.arg(at_root("tests/cpython/derived.py"));
        let mut stated = Vec::new();
        for example in interpreter.own(examples(), |example| !example.is_dump() && !example.name.starts_with("erg")) {
            command.arg(desk.put(&example.name, &example.file));
            let options = Options { profile: Profile::Load, sharing: Sharing::None, ..Options::default() };
            let compiled = rehydrate::compile(&source(&example.file, example.python), options).expect("it compiles");
            let verified = rehydrate::verify(compiled.image).expect("what is compiled is verified");
            for code in rehydrate::disassemble(&verified, &[]).rows().filter_map(|row| row.code) {
                let bytes = |wanted| match code.tables.iter().find(|(field, _)| *field == wanted) {
                    Some((_, TableData::Inline { bytes, .. })) => *bytes,
                    other => panic!("without sharing, every table stands where it is needed: {other:?}"),
                };
                let KindCounts { n_locals, n_cells, n_free, .. } = count_kinds(bytes(Field::LocalsPlusKinds));
                let first_traceable =
                    example.python.first_traceable(bytes(Field::Code)).expect("a version that has it");
                stated.push(format!("{n_locals} {n_cells} {n_free} {first_traceable}"));
            }
        }
        assert!(!stated.is_empty(), "{}", interpreter.python);
        stated.sort_unstable();
        let output = command.output().expect("it started before");
        let derived = String::from_utf8(output.stdout).expect("it prints numbers");
        assert_eq!(stated, derived.lines().collect::<Vec<_>>(), "CPython {}", interpreter.python);
    }
}
