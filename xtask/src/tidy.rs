//! Rules that no compiler checks. Each finding is one line that says where and what to do.

use crate::layers::PURE;
use crate::{Failure, layers, process, walls};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Longest file of production Rust, in lines: beyond this it wants a second noun.
const FILE_LINES_MAX: usize = 800;
/// Longest function of production Rust, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that are longer for now: `path function lines`. They may shrink, never grow.
const RATCHET: &str = "xtask/ratchet.txt";
/// Largest committed file: recordings and corpora are cut to fit.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Words that nothing in the repository says. They are joined here so that this file does not say them either.
const BANNED: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/fa", "rm/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("TO", "DO"), "finish it or file an issue"),
    (concat!("FIX", "ME"), "finish it or file an issue"),
];
/// Words that no Rust source says.
const BANNED_RUST: &[(&str, &str)] = &[
    (
        concat!("#[ig", "nore"),
        "a test that does not run proves nothing: assert what happens today and say so",
    ),
    (concat!("todo", "!("), "no stub stands in"),
    (concat!("unimple", "mented!("), "no stub stands in"),
    (concat!("dbg", "!("), "left over from debugging"),
];
/// What no pure crate says outside its tests. The tests may read their corpora, so these are not in the clippy walls.
const BANNED_PURE: &[(&str, &str)] = &[
    (concat!("Box<dyn Fn", "Mut("), "outputs are values: no stored callbacks"),
    (concat!("Box<dyn F", "n("), "outputs are values: no stored callbacks"),
    (concat!("std::f", "s"), "files live in the shells"),
    (concat!("std::e", "nv"), "a core knows no process"),
    (concat!("std::i", "o::stdin"), "a core knows no process"),
    (concat!("asy", "nc fn"), "a core is called, never awaited"),
    (concat!("thread_", "local!"), "a core has no hidden state"),
    (concat!("static m", "ut"), "a core has no hidden state"),
];

/// Prints every finding; an error when there is one.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let findings = findings(root)?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(format!("{}\ntidy: {} findings", findings.join("\n"), findings.len()))
}

fn findings(root: &Path) -> Result<Vec<String>, Failure> {
    let mut findings = layers::findings(root);
    findings.extend(walls::findings(root));
    let mut ratchet = read_ratchet(root);
    for path in files(root)? {
        let full = root.join(&path);
        let bytes = fs::metadata(&full).map_or(0, |data| data.len());
        if bytes > FILE_BYTES_MAX {
            findings.push(format!("{path}: {bytes} bytes, more than {FILE_BYTES_MAX}"));
        }
        // What is not text has no words, and a recording says what was recorded.
        let Ok(text) = fs::read_to_string(&full) else { continue };
        if path.contains("/data/") || path.contains("corpus/") || path.ends_with(".lock") {
            continue;
        }
        findings.extend(words(&path, &text, BANNED));
        if path.ends_with(".rs") {
            findings.extend(rust(&path, &text, &mut ratchet));
        }
    }
    let stale = ratchet.keys().map(|(path, name)| format!("{RATCHET}: {path} {name} is no longer too long"));
    findings.extend(stale);
    Ok(findings)
}

/// Every file that is or would be committed.
fn files(root: &Path) -> Result<Vec<String>, Failure> {
    let list =
        process::output(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
    let mut files: Vec<String> =
        list.split('\0').filter(|path| root.join(path).is_file()).map(str::to_string).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

type Ratchet = BTreeMap<(String, String), usize>;

fn read_ratchet(root: &Path) -> Ratchet {
    let text = fs::read_to_string(root.join(RATCHET)).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let key = (words.next()?.to_string(), words.next()?.to_string());
        Some((key, words.next()?.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect()
}

fn words(path: &str, text: &str, banned: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, why) in banned {
            if line.contains(word) {
                found.push(format!("{path}:{}: `{word}`: {why}", number + 1));
            }
        }
    }
    found
}

fn rust(path: &str, text: &str, ratchet: &mut Ratchet) -> Vec<String> {
    let mut found = words(path, text, BANNED_RUST);
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let attribute = line.trim_start();
        let opens = attribute.starts_with("#[allow(") || attribute.starts_with("#![allow(");
        let end = lines[index..].iter().take(8).position(|line| line.contains(")]")).unwrap_or(0);
        if opens && !lines[index..=index + end].iter().any(|line| line.contains("reason")) {
            found.push(format!("{path}:{}: an allow says its reason", index + 1));
        }
    }
    if !is_production(path) {
        return found;
    }
    if lines.len() > FILE_LINES_MAX {
        found.push(format!("{path}: {} lines, more than {FILE_LINES_MAX}", lines.len()));
    }
    let production = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    if PURE.iter().any(|name| path.starts_with(&format!("crates/{name}/src/"))) && !path.contains("fuzzing") {
        found.extend(words(path, production, BANNED_PURE));
    }
    for (name, line, length) in functions(production).into_iter().filter(|f| f.2 > FUNCTION_LINES_MAX) {
        let allowed = ratchet.remove(&(path.to_string(), name.clone())).unwrap_or(FUNCTION_LINES_MAX);
        if length > allowed {
            found.push(format!("{path}:{line}: function {name} has {length} lines, more than {allowed}"));
        }
    }
    found
}

fn is_production(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let folders = path.split('/').rev().skip(1);
    file != "tests.rs" && !folders.into_iter().any(|folder| ["tests", "benches", "fuzz"].contains(&folder))
}

/// Name, first line and length of every function with a body. Reads tokens, not grammar: text, characters and comments
/// are skipped, then braces are matched.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    let mut pending: Option<(String, usize)> = None;
    let (mut depth, mut nesting) = (0usize, 0usize);
    let mut after_fn = false;
    for (token, line) in tokens(text) {
        match token {
            Token::Word(word) if after_fn => {
                pending = Some((word, line));
                after_fn = false;
            }
            Token::Word(word) => after_fn = word == "fn",
            Token::Mark('(' | '[') => {
                after_fn = false;
                nesting += 1;
            }
            Token::Mark(')' | ']') => nesting = nesting.saturating_sub(1),
            Token::Mark(';') if nesting == 0 => pending = None,
            Token::Mark('{') => {
                depth += 1;
                if let Some((name, start)) = pending.take() {
                    open.push((name, start, depth));
                }
            }
            Token::Mark('}') => {
                if let Some((name, start, _)) = open.pop_if(|(_, _, at)| *at == depth) {
                    found.push((name, start, line - start + 1));
                }
                depth = depth.saturating_sub(1);
            }
            Token::Mark(_) => after_fn = false,
        }
    }
    found
}

enum Token {
    Word(String),
    Mark(char),
}

/// Words and marks with their line numbers, without comments, text and character literals.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let bytes: Vec<char> = text.chars().collect();
    let at = |index: usize| bytes.get(index).copied().unwrap_or('\0');
    let (mut index, mut line) = (0, 1);
    let mut found = Vec::new();
    while index < bytes.len() {
        let start = index;
        let first = at(index);
        if first.is_alphabetic() || first == '_' {
            while at(index).is_alphanumeric() || at(index) == '_' {
                index += 1;
            }
            let word: String = bytes[start..index].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(index), '"' | '#');
            match raw.then(|| raw_text_end(&bytes, index)).flatten() {
                Some(end) => index = end,
                None => found.push((Token::Word(word), line)),
            }
        } else {
            index = match first {
                '/' if at(index + 1) == '/' => skip(&bytes, index, |i| at(i) == '\n'),
                '/' if at(index + 1) == '*' => {
                    skip(&bytes, index + 2, |i| at(i - 1) == '*' && at(i) == '/') + 1
                }
                '"' => text_end(&bytes, index, '"'),
                '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => text_end(&bytes, index, '\''),
                mark => {
                    if !mark.is_whitespace() {
                        found.push((Token::Mark(mark), line));
                    }
                    index + 1
                }
            };
        }
        line += bytes[start..index.min(bytes.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn skip(bytes: &[char], from: usize, ends: impl Fn(usize) -> bool) -> usize {
    (from..bytes.len()).find(|index| ends(*index)).unwrap_or(bytes.len())
}

fn text_end(bytes: &[char], from: usize, quote: char) -> usize {
    let mut index = from + 1;
    while index < bytes.len() && bytes[index] != quote {
        index += if bytes[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

fn raw_text_end(bytes: &[char], from: usize) -> Option<usize> {
    let hashes = bytes[from..].iter().take_while(|c| **c == '#').count();
    if bytes.get(from + hashes) != Some(&'"') {
        return None;
    }
    let body = from + hashes + 1;
    let closes = |index: usize| {
        bytes[index] == '"' && bytes[index + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    Some(skip(bytes, body, closes) + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_their_name_to_their_last_brace() {
        let text = "fn a() {\n  let x = '{'; // {\n  \"}\\\"{\";\n}\nimpl T { fn b<'a>(x: &'a [u8; 3]) -> i32\n{ r#\"{\"#; 1 } }\ntrait U { fn c(); }\n";
        assert_eq!(functions(text), [("a".to_string(), 1, 4), ("b".to_string(), 5, 2)]);
    }

    #[test]
    fn an_allow_without_a_reason_is_a_finding() {
        let mut ratchet = Ratchet::new();
        assert_eq!(rust("crates/x/src/a.rs", "#[allow(dead_code)]\nfn a() {}\n", &mut ratchet).len(), 1);
        let with = "#[allow(\n  dead_code,\n  reason = \"why\"\n)]\nfn a() {}\n";
        assert!(rust("crates/x/src/a.rs", with, &mut ratchet).is_empty());
    }

    #[test]
    fn a_long_function_fails_unless_the_ratchet_knows_it() {
        let body = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(80));
        let mut ratchet = Ratchet::new();
        assert_eq!(rust("crates/x/src/a.rs", &body, &mut ratchet).len(), 1);
        ratchet.insert(("crates/x/src/a.rs".into(), "long".into()), 82);
        assert!(rust("crates/x/src/a.rs", &body, &mut ratchet).is_empty());
        assert!(ratchet.is_empty());
    }

    #[test]
    fn a_core_may_read_files_in_its_tests_only() {
        let reads = concat!("use std::f", "s;\n");
        let mut ratchet = Ratchet::new();
        assert_eq!(rust("crates/rtp/src/a.rs", reads, &mut ratchet).len(), 1);
        assert!(rust("crates/rtp/tests/a.rs", reads, &mut ratchet).is_empty());
        assert!(rust("crates/rtp/src/nack/tests.rs", reads, &mut ratchet).is_empty());
        assert!(rust("crates/store/src/a.rs", reads, &mut ratchet).is_empty());
    }
}
