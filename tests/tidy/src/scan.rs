//! Just enough of Rust's grammar to count: what is code, what is a test, where functions begin and end.
//!
//! Comments and the insides of literals become spaces, so that every offset and line stays what it was. Not a parser:
//! code that macros make is not seen.

use std::ops::Range;

/// A source with its comments and literals blanked.
#[derive(Clone, Debug)]
pub struct Code {
    /// The code alone; as long as the source.
    pub text: String,
    starts: Vec<usize>,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// From `fn` to its closing brace.
    pub span: Range<usize>,
}

/// An item that is compiled for tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestItem {
    /// From its first attribute to its end.
    pub span: Range<usize>,
    /// Its name, if it is a module in a file of its own.
    pub module: Option<String>,
}

impl Code {
    /// Blanks comments and literals.
    pub fn of(source: &str) -> Code {
        let text = blank(source);
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Code { text, starts }
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Where this word stands alone.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.text.as_bytes();
        self.text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = at.checked_sub(1).is_none_or(|before| !is_word(bytes[before]));
            before && bytes.get(at + word.len()).is_none_or(|after| !is_word(*after))
        })
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        self.words("fn").filter_map(|at| self.function_at(at)).collect()
    }

    fn function_at(&self, at: usize) -> Option<Function> {
        let rest = &self.text[at + 2..];
        let name: String =
            rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            return None;
        }
        let end = self.item_end(at)?;
        self.text[..end].ends_with('}').then_some(Function { name, span: at..end })
    }

    /// Items under `#[cfg(test)]`, and test functions.
    pub fn tests(&self) -> Vec<TestItem> {
        let mut found = Vec::new();
        for (at, _) in self.text.match_indices("#[") {
            let Some(close) = matching(&self.text, at + 1) else { continue };
            if is_test_attribute(&self.text[at + 2..close])
                && let Some(end) = self.item_end(close + 1)
            {
                found.push(TestItem { span: at..end, module: outside_module(&self.text[close + 1..end]) });
            }
        }
        found
    }

    /// The offset after the item that begins at or after `at`: after its `;` or its closing brace.
    fn item_end(&self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut i = at;
        while i < bytes.len() {
            match bytes[i] {
                b'(' | b'[' => i = matching(&self.text, i)?,
                b'{' => return matching(&self.text, i).map(|close| close + 1),
                b';' => return Some(i + 1),
                _ => {}
            }
            i += 1;
        }
        None
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_test_attribute(inner: &str) -> bool {
    let inner = inner.trim();
    let path = inner.split('(').next().unwrap_or(inner).trim();
    path == "test" || path.ends_with("::test") || inner == "cfg(test)" || inner.starts_with("cfg(all(test")
}

fn outside_module(item: &str) -> Option<String> {
    let declared = item.trim().strip_suffix(';')?;
    let mut words = declared.split_whitespace().rev();
    let name = words.next()?;
    (words.next() == Some("mod")).then(|| name.to_owned())
}

/// Where the bracket at `open` closes.
fn matching(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes.get(i + 1) == Some(&b'/') => line_end(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'*') => block_comment_end(bytes, i),
            b'"' => string_end(bytes, i),
            b'r' if i == 0 || !is_word(bytes[i - 1]) || bytes[i - 1] == b'b' => raw_string_end(bytes, i),
            b'\'' => char_end(bytes, i),
            _ => i,
        };
        for byte in &mut out[i..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        i = end.max(i + 1);
    }
    // Only whole characters were blanked, or left as they were.
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    let mut i = at;
    while i + 1 < bytes.len() {
        match &bytes[i..i + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// The end of `r"..."` or `r#"..."#` at `at`, or `at` if there is none (`r#match`, or just a letter).
fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return at;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &bytes[open + 1..];
    body.windows(close.len())
        .position(|window| window == close)
        .map_or(bytes.len(), |p| open + 1 + p + close.len())
}

/// The end of a character literal, or `at` if this quote begins a lifetime.
fn char_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes[at + 3..].iter().position(|byte| *byte == b'\'');
        return close.map_or(at, |length| at + 3 + length + 1);
    }
    let close = bytes[at + 1..].iter().take(5).position(|byte| *byte == b'\'');
    match close {
        Some(length) if length == 1 || (length > 1 && bytes[at + 1] >= 0x80) => at + length + 2,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_nothing_moves() {
        let source = "let a = \"x.unwrap() // \\\" \"; // b\n/* c /* d */ e */ let r = r#\"f\"g\"#; let l: &'static str; 'h'; '\\''; '\u{fc}' z";
        let code = Code::of(source);
        assert_eq!(code.text.len(), source.len());
        let words: Vec<_> = code.text.split_whitespace().collect();
        assert_eq!(words.join(" "), "let a = ; let r = ; let l: &'static str; ; ; z");
        assert_eq!(code.line(source.len() - 1), 2);
    }

    #[test]
    fn functions_have_a_name_and_an_end() {
        let code = Code::of(
            "fn a<const N: usize>(x: [u8; 3], f: fn(u8) -> u8) -> u8 { if x { y } }\ntrait T { fn b(); }\nfn c() {}",
        );
        let names: Vec<_> = code.functions().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(code.text[code.functions()[0].span.clone()].ends_with("} }"));
    }

    #[test]
    fn tests_are_known() {
        let code = Code::of(
            "#[cfg(test)]\nmod tests { fn x() {} }\n#[cfg(test)] pub mod fakes;\n#[tokio::test(flavor = \"a\")]\nasync fn t() { }\nfn no() {}\n#[cfg(not(test))] fn n() {}",
        );
        let found = code.tests();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].module.as_deref(), Some("fakes"));
        assert!(code.text[found[2].span.clone()].ends_with("t() { }"));
    }
}
