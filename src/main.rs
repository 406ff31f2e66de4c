//! x
use rehydrate::*;
fn main() {
    let mut n = 0;
    let mut bad = 0;
    let mut size = [0usize; 3];
    let sharing = match std::env::var("SHARING").as_deref() {
        Ok("identity") => Sharing::Identity,
        Ok("none") => Sharing::None,
        _ => Sharing::Structural,
    };
    let python = std::env::var("PY").ok().map(|p| p.parse().unwrap());
    for path in std::env::args().skip(1) {
        for entry in walkdir::WalkDir::new(&path).sort_by_file_name() {
            let entry = entry.unwrap();
            let name = entry.path().to_string_lossy().into_owned();
            if !(name.ends_with(".pyc") || name.ends_with(".marshal")) {
                continue;
            }
            let file = std::fs::read(entry.path()).unwrap();
            n += 1;
            let options = compile::Options { sharing, ..Default::default() };
            if let Err(e) = check::check(&file, python, options) {
                bad += 1;
                println!("{name}: {e}");
                continue;
            }
            if let file::Input::Source(s) = file::Input::read(&file, python).unwrap() {
                let i = compile::compile(&s, options).unwrap();
                size[0] += s.marshal.len();
                size[1] += i.image.payload_len();
                size[2] += i.image.source.as_ref().unwrap().len();
            }
        }
    }
    println!(
        "{n} files, {bad} bad, {size:?} {:.2}% {:.2}%",
        size[1] as f64 / size[0] as f64 * 100.,
        size[2] as f64 / size[0] as f64 * 100.
    );
}
