//! The reference of the instruction set, for people and for programs: all of it from the tables of [`crate::isa`] and
//! [`crate::common`].

use serde_json::{Value, json};

use crate::common;
use crate::image;
use crate::isa::{Info, Intrinsic, OPS, Oparg, Origin, Pops, Pushes, Section, TextClass};
use crate::python::Python;

/// The reference as text: the instructions, then what their operands number.
pub fn text() -> String {
    let rows = OPS.iter().map(|op| row(op.info()));
    let instructions = aligned([HEADINGS.map(str::to_owned)].into_iter().chain(rows));
    format!(
        "Instructions are an opcode and an oparg, a byte each.\n\n{instructions}\
         \nCommon constants, version {version}:\n\n{consts}\
         \nIntrinsics:\n\n{intrinsics}\
         \nCommon names, version {version}:\n\n{names}",
        version = common::VERSION,
        consts = columns(common::CONSTS.iter().map(|(_, spelled)| *spelled), 5),
        intrinsics = columns(Intrinsic::ALL.iter().map(|intrinsic| intrinsic.name()), 5),
        names = columns(common::NAMES.into_iter(), 5),
    )
}

/// The instructions as a table of Markdown.
pub fn markdown() -> String {
    let rule = HEADINGS.map(|_| "---".to_owned());
    let rows = OPS.iter().map(|op| {
        let [code, mnemonic, rest @ ..] = row(op.info());
        let [operand, effect, origin, meaning] = rest;
        [format!("`{code}`"), format!("`{mnemonic}`"), operand, effect, origin, meaning]
    });
    let rows = [HEADINGS.map(str::to_owned), rule].into_iter().chain(rows);
    rows.map(|row| format!("| {} |\n", row.join(" | "))).collect()
}

/// The instructions and what their operands number as a JSON document.
pub fn json() -> Value {
    let instructions = OPS.iter().map(|op| {
        let info = op.info();
        json!({
            "opcode": info.op as u8,
            "mnemonic": info.mnemonic,
            "symbol": symbol(info),
            "operand": operand(info.oparg),
            "pops": pops(info.pops),
            "pushes": pushes(info.pushes),
            "origin": origin(info.origin),
            "wide": info.text.map(|class| class.wide),
            "interned": info.text.map(|class| class.interned),
            "meaning": info.meaning,
        })
    });
    json!({
        "container_version": image::VERSION,
        "common_version": common::VERSION,
        "instructions": instructions.collect::<Vec<_>>(),
        "sections": Section::ALL.map(Section::name),
        "common_consts": common::CONSTS.map(|(_, spelled)| spelled),
        "intrinsics": Intrinsic::ALL.map(Intrinsic::name),
        "common_names": common::NAMES[..],
    })
}

/// The same as a C header, for a loader inside CPython.
pub fn c_header() -> String {
    let define =
        |info: &Info| format!("#define REHYDRATE_{} {:#04x} /* {} */\n", symbol(info), info.op as u8, info.meaning);
    let consts = common::CONSTS.map(|(constant, _)| format!("CONST_{}", upper_snake(&format!("{constant:?}"))));
    let intrinsics = Intrinsic::ALL.map(|intrinsic| format!("INTRINSIC_{}", intrinsic.name().to_uppercase()));
    let sections = Section::ALL.map(|section| format!("SECTION_{}", section.name().to_uppercase().replace(' ', "_")));
    format!(
        "/* The instruction set of module initializers. Printed by `rehydrate isa --format c`; do not edit. */\n\
         #ifndef REHYDRATE_ISA_H\n#define REHYDRATE_ISA_H\n\n\
         #define REHYDRATE_CONTAINER_MAGIC \"{magic}\"\n\
         #define REHYDRATE_CONTAINER_VERSION {container}\n\
         /* Of the common constants and names: an image states the version it was compiled for. */\n\
         #define REHYDRATE_COMMON_VERSION {version}\n\n\
         /* Opcodes. */\n{defines}\n\
         /* Operands of CALL_INTRINSIC_1 and CALL_INTRINSIC_2. */\n{intrinsics}\n\
         /* The binary data, in the order of the container. */\n{sections}\n\
         /* Operands of LOAD_COMMON_CONST. */\n{consts}\n\
         /* Operands of LOAD_COMMON_NAME. */\n\
         static const char *const rehydrate_common_names_v{version}[{n_names}] = {{\n{names}}};\n\n\
         #endif /* REHYDRATE_ISA_H */\n",
        magic = image::MAGIC.escape_ascii(),
        container = image::VERSION,
        version = common::VERSION,
        defines = OPS.iter().map(|op| define(op.info())).collect::<String>(),
        intrinsics = c_enum("intrinsic", &intrinsics),
        sections = c_enum("section", &sections),
        consts = c_enum("common_const", &consts),
        n_names = common::NAMES.len(),
        names = common::NAMES.map(|name| format!("    \"{}\",\n", name.escape_default())).concat(),
    )
}

const HEADINGS: [&str; 6] = ["opcode", "mnemonic", "operand", "stack", "origin", "meaning"];

fn row(info: &Info) -> [String; 6] {
    [
        format!("{:#04x}", info.op as u8),
        info.mnemonic.to_owned(),
        operand(info.oparg),
        format!("{} -> {}", pops(info.pops), pushes(info.pushes)),
        origin(info.origin).to_owned(),
        info.meaning.to_owned(),
    ]
}

fn operand(oparg: Oparg) -> String {
    match oparg {
        Oparg::Unused => "0".to_owned(),
        Oparg::High => "bits".to_owned(),
        Oparg::Int => "int".to_owned(),
        Oparg::Char => "code point".to_owned(),
        Oparg::Strings => "strings".to_owned(),
        Oparg::References => "references".to_owned(),
        Oparg::NearReferences => "references of two bytes".to_owned(),
        Oparg::Mask => "mask".to_owned(),
        Oparg::Slots => "0".to_owned(),
        Oparg::CommonConst => "constant".to_owned(),
        Oparg::CommonName => "name".to_owned(),
        Oparg::Commons => "values".to_owned(),
        Oparg::Slot => "slot".to_owned(),
        Oparg::Depth => "distance".to_owned(),
        Oparg::Length(section) => format!("length in {}", section.name()),
        Oparg::Count => "values".to_owned(),
        Oparg::Pairs => "pairs".to_owned(),
        Oparg::Intrinsic => "intrinsic".to_owned(),
    }
}

fn pops(pops: Pops) -> String {
    match pops {
        Pops::Fixed(n) => n.to_string(),
        Pops::References => "those of 0".to_owned(),
        Pops::PerOparg(1) => "oparg".to_owned(),
        Pops::PerOparg(n) => format!("{n}*oparg"),
        Pops::Code => {
            let mut numbers: Vec<_> = Python::all().map(|python| python.layout().operands.len()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn pushes(pushes: Pushes) -> String {
    match pushes {
        Pushes::Fixed(n) => n.to_string(),
        Pushes::Oparg => "oparg".to_owned(),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Stock => "CPython",
        Origin::Issue566 => "issue 566",
        Origin::Own => "rehydrate",
    }
}

/// The mnemonic, distinct for each opcode.
fn symbol(info: &Info) -> String {
    let (interned, utf8) = match info.text {
        Some(TextClass { wide, interned }) => {
            (if interned { "_INTERNED" } else { "" }, if wide { "_UTF8" } else { "" })
        }
        None => ("", ""),
    };
    format!("{}{interned}{utf8}", info.mnemonic)
}

/// `EmptyFrozenSet` becomes `EMPTY_FROZEN_SET`.
fn upper_snake(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

fn c_enum(name: &str, items: &[String]) -> String {
    let items: String = (0..).zip(items).map(|(at, item)| format!("    REHYDRATE_{item} = {at},\n")).collect();
    format!("enum rehydrate_{name} {{\n{items}}};\n")
}

/// Rows whose columns begin below each other.
fn aligned<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Numbered entries, so many in a line, counted along the line.
fn columns<'t>(entries: impl Iterator<Item = &'t str>, n_columns: usize) -> String {
    let entries: Vec<_> = entries.enumerate().map(|(at, entry)| format!("{at:>4} {entry}")).collect();
    let width = entries.iter().map(String::len).max().unwrap_or_default();
    let line = |entries: &[String]| {
        let cells: Vec<_> = entries.iter().map(|entry| format!("{entry:<width$}")).collect();
        cells.join(" ").trim_end().to_owned() + "\n"
    };
    entries.chunks(n_columns).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_stands_in_every_form() {
        let (text, markdown, header, json) = (text(), markdown(), c_header(), json());
        for (op, row) in OPS.iter().zip(json["instructions"].as_array().unwrap()) {
            let (code, mnemonic) = (format!("{:#04x}", *op as u8), op.info().mnemonic);
            assert!(text.lines().any(|line| line.starts_with(&format!("{code}    {mnemonic}"))), "{code}");
            assert!(markdown.contains(&format!("| `{code}` | `{mnemonic}` |")), "{code}");
            assert!(header.contains(&format!("#define REHYDRATE_{} {code} ", symbol(op.info()))), "{code}");
            assert_eq!((row["opcode"].as_u64(), row["mnemonic"].as_str()), (Some(*op as u64), Some(mnemonic)));
        }
    }

    #[test]
    fn a_row_of_text_says_what_the_table_says() {
        let text = text();
        let line = |code: &str| text.lines().find(|line| line.starts_with(code)).unwrap().to_owned();
        let said = line("0x10").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(said, "0x10 BUILD_TUPLE values oparg -> 1 CPython Pushes a tuple of its operands, deepest first");
        assert!(line("0x1a").contains("6 or 7 -> 1"));
        assert!(line("0x13").contains("2*oparg -> 1"));
        assert!(line("0x0a").contains("length in names"));
        assert!(text.contains("\n   0 None        "));
        assert!(text.contains(" 255 stdout\n"));
    }

    #[test]
    fn symbols_of_the_c_header_are_distinct() {
        let header = c_header();
        let mut symbols: Vec<_> = header
            .lines()
            .filter_map(|line| line.trim_start().trim_start_matches("#define ").split_once(' '))
            .map(|(symbol, _)| symbol)
            .filter(|symbol| symbol.starts_with("REHYDRATE_"))
            .collect();
        let all = symbols.len();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), all);
        assert!(symbols.contains(&"REHYDRATE_MAKE_STRING_INTERNED_UTF8"));
        assert!(symbols.contains(&"REHYDRATE_CONST_EMPTY_FROZEN_SET"));
        assert!(header.contains("rehydrate_common_names_v1[256] = {\n    \"__static_attributes__\",\n"));
    }
}
